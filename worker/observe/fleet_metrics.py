"""Declares the metrics that tell of a whole fleet: they are the same from every pod, and from ``lock-worker exporter``.

They are read from Redis every few seconds. A query takes the ``max`` over the pods, never the sum. So a pod that cannot
read them any more leaves them out (:class:`FreshMetrics`): the ``max`` would go on showing its old values.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

#: After so many seconds without a read the metrics are left out.
STALE_SECONDS = 15.0

REGISTRY = CollectorRegistry()

QUEUE_JOBS = Gauge(
    "lock_worker_queue_jobs",
    "Jobs of LOCK_QUEUE by state: ready to be taken, in_flight in a worker, delayed until a time, due (their time has "
    "come, and no worker has made them ready yet), held by an operator.",
    ["state"],
    registry=REGISTRY,
)
QUEUE_OLDEST_READY = Gauge(
    "lock_worker_queue_oldest_ready_seconds",
    "The longest that a new ready job can have waited, known to about ten seconds; 0 if there is none.",
    registry=REGISTRY,
)
QUEUE_WORKABLE = Gauge(
    "lock_worker_queue_workable",
    "Jobs that more workers could do now, to scale on: ready or due, but 0 while the fleet pauses, while all breakers "
    "are open, and while a rate limit is what jobs wait for.",
    registry=REGISTRY,
)
WORKERS = Gauge("lock_worker_workers", "Workers that registered in the last half minute.", registry=REGISTRY)
SETTINGS_DIFFER = Gauge(
    "lock_worker_settings_differ",
    "Settings in which workers differ although all must have the same value; lock-worker status names them.",
    registry=REGISTRY,
)
FLEET_PAUSED = Gauge(
    "lock_worker_fleet_paused",
    "1 while the whole fleet takes no jobs, by what asked for it.",
    ["by"],
    registry=REGISTRY,
)
FLEET_LIMIT = Gauge(
    "lock_worker_fleet_calls_per_second_limit",
    "The fleet's limit in calls a second because the API refused more; 0 for no such limit.",
    registry=REGISTRY,
)
DEAD_LETTERS = Gauge("lock_worker_dead_letters", "Dead letters in DEAD_STREAM.", registry=REGISTRY)
DEAD_LETTERS_MAX = Gauge(
    "lock_worker_dead_letters_max",
    "The dead letters that are kept (DEAD_MAXLEN); the oldest go first, or sooner, by DEAD_MAX_BYTES.",
    registry=REGISTRY,
)
RESULTS_EVENTS = Gauge("lock_worker_results_stream_events", "Events in the results stream.", registry=REGISTRY)
RESULTS_EVENTS_MAX = Gauge(
    "lock_worker_results_stream_events_max",
    "The events that the results stream keeps (RESULTS_MAXLEN), approximately.",
    registry=REGISTRY,
)
RESULTS_BYTES = Gauge(
    "lock_worker_results_stream_bytes",
    "Bytes of Redis that the results stream takes, approximately.",
    registry=REGISTRY,
)
RESULTS_BYTES_MAX = Gauge(
    "lock_worker_results_stream_bytes_max",
    "The bytes that the results stream may take: RESULTS_MAX_BYTES, or less where Redis has little memory.",
    registry=REGISTRY,
)
RESULTS_OLDEST = Gauge(
    "lock_worker_results_oldest_seconds",
    "Age of the oldest event in the results stream: a consumer that is down for longer loses events once the stream is "
    "full.",
    registry=REGISTRY,
)
RESULTS_GROUP_LAG = Gauge(
    "lock_worker_results_group_lag",
    "Events in the results stream not delivered to a consumer group yet, of the 20 slowest groups.",
    ["group"],
    registry=REGISTRY,
)
REDIS_MEMORY_USED = Gauge(
    "lock_worker_redis_memory_used_bytes", "Memory that Redis uses, as its maxmemory counts it.", registry=REGISTRY
)
REDIS_MEMORY_MAX = Gauge(
    "lock_worker_redis_memory_max_bytes",
    "The maxmemory of Redis; 0 for no limit. A full server refuses new jobs.",
    registry=REGISTRY,
)

# Every series stands at 0 from the start.
for _state in ("ready", "in_flight", "delayed", "due", "held"):
    QUEUE_JOBS.labels(_state)
for _by in ("api", "operator"):
    FLEET_PAUSED.labels(_by)


class FreshMetrics(Collector):
    """Collects metrics that are read from elsewhere, as long as they can be true.

    Before the first read it collects them as they are, so that every series stands at 0 from the start. After it, it
    collects nothing while the last read is longer ago than :data:`STALE_SECONDS`.

    Args:
        registry: the metrics.
        clock: returns monotonic seconds.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._read_at: float | None = None

    def note_read(self) -> None:
        """Note that the metrics were read just now."""
        self._read_at = self._clock()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; none if they are stale."""
        if self._read_at is not None and self._clock() - self._read_at > STALE_SECONDS:
            return ()
        return self._registry.collect()


#: What is shown of this process's fleet.
FRESH = FreshMetrics(REGISTRY)
