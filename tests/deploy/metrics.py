"""The names of metrics in PromQL, and those that a worker exposes."""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import iter_modules

import worker.observe

#: Named by alerts and panels, and not exposed yet.
NOT_EXPOSED_YET = frozenset(
    {
        "lock_worker_answer_drift_total",
        "lock_worker_api_call_seconds_bucket",
        "lock_worker_api_calls_total",
        "lock_worker_build_info",
        "lock_worker_dead_letters",
        "lock_worker_dead_letters_max",
        "lock_worker_job_lateness_seconds_bucket",
        "lock_worker_jobs_recovered_total",
        "lock_worker_queue_jobs",
        "lock_worker_queue_oldest_ready_seconds",
        "lock_worker_queue_workable",
        "lock_worker_redis_up",
        "lock_worker_results_stream_bytes_max",
        "lock_worker_results_stream_events_max",
        "lock_worker_settings_differ",
        "lock_worker_workers",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    }
)
#: Prometheus makes these itself.
OF_PROMETHEUS = {"up", "ALERTS"}
_LABELS = re.compile(r'\{[^{}]*\}|"[^"]*"|\b(?:by|on|without|group_left|group_right|ignoring)\s*\([^()]*\)|\[[^\]]*\]')
_NAME = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
_OPERATORS = {"and", "or", "unless"}


def metrics_in(expr: str) -> set[str]:
    """The metrics that an expression reads."""
    return set(_NAME.findall(_LABELS.sub(" ", expr))) - _OPERATORS


def exposed() -> set[str]:
    """The metrics of a worker, as PromQL names them."""
    families = [
        family
        for module in iter_modules(worker.observe.__path__, "worker.observe.")
        if module.name.endswith("metrics")
        for family in import_module(module.name).REGISTRY.collect()
    ]
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + ending for family in families for ending in endings.get(family.type, [""])}
