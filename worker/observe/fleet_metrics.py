"""Declares the metrics that tell of a whole fleet: they are the same from every pod, and from ``lock-worker exporter``.

They are read from Redis every few seconds. A query takes the ``max`` over the pods, never the sum.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

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
