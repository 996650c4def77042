"""Declares the metrics of a process as such, of a worker and of ``lock-worker exporter`` alike."""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

REDIS_UP = Gauge(
    "lock_worker_redis_up", "1 if Redis answered this process in the last ten seconds, else 0.", registry=REGISTRY
)
BUILD = Gauge(
    "lock_worker_build_info",
    "Always 1; the label names the version of this program.",
    ["version"],
    registry=REGISTRY,
)
BUILD.labels(version("lock-worker")).set(1)
