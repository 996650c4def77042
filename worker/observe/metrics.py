"""Every metric of the worker, declared in this one place, in the terms of Prometheus.

Counters count this process alone since it started; what the whole fleet has done stands in Redis, where
``lock-worker status`` reads it.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

FINISHED = Counter(
    "lock_worker_jobs_finished", "Jobs whose result event is out, by outcome.", ["outcome"], registry=REGISTRY
)
DELAYED = Counter(
    "lock_worker_jobs_delayed", "Times that a job was put aside in Redis, by reason.", ["reason"], registry=REGISTRY
)
DUPLICATES = Counter("lock_worker_duplicates_dropped", "Copies of a job that was ended before.", registry=REGISTRY)
LOST = Counter(
    "lock_worker_leases_lost", "Jobs that were not ours any more when their end was to be told.", registry=REGISTRY
)
ERRORS = Counter("lock_worker_job_errors", "Errors of the worker's own that interrupted a job.", registry=REGISTRY)
IGNORED_OPTIONS = Counter(
    "lock_worker_options_ignored", "Message options that have no effect, by option.", ["option"], registry=REGISTRY
)
SECONDS = Histogram(
    "lock_worker_job_seconds",
    "Seconds from the first take of a job to its result event, its waits included.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
    registry=REGISTRY,
)
IN_FLIGHT = Gauge("lock_worker_jobs_in_flight", "Jobs that this process holds now.", registry=REGISTRY)
CONCURRENCY = Gauge("lock_worker_concurrency", "Jobs that this process works on at once at most.", registry=REGISTRY)
BREAKER_OPEN = Gauge(
    "lock_worker_breaker_open",
    "1 while a breaker of this process is open and no job but a probe passes, by reason.",
    ["reason"],
    registry=REGISTRY,
)
FLEET_PAUSED = Gauge(
    "lock_worker_fleet_paused", "1 while the whole fleet takes no jobs, by who asked for it.", ["by"], registry=REGISTRY
)
FLEET_LIMIT = Gauge(
    "lock_worker_fleet_calls_per_second_limit",
    "Calls a second that the fleet keeps to because the API refused more; 0 for no such limit.",
    registry=REGISTRY,
)
RESULTS_EVENTS = Gauge(
    "lock_worker_results_stream_events", "Events in the results stream; the same from every pod.", registry=REGISTRY
)
RESULTS_BYTES = Gauge(
    "lock_worker_results_stream_bytes",
    "Bytes of Redis that the results stream takes, about, to be compared with RESULTS_MAX_BYTES; the same from every "
    "pod.",
    registry=REGISTRY,
)
RESULTS_OLDEST = Gauge(
    "lock_worker_results_oldest_seconds",
    "Age of the oldest event in the results stream: a consumer that is away for longer loses events once the stream is "
    "full; the same from every pod.",
    registry=REGISTRY,
)
RESULTS_GROUP_LAG = Gauge(
    "lock_worker_results_group_lag",
    "Events in the results stream that a consumer group was not given yet, of the 20 slowest groups; the same from "
    "every pod.",
    ["group"],
    registry=REGISTRY,
)
REDIS_MEMORY_USED = Gauge(
    "lock_worker_redis_memory_used_bytes",
    "Memory that Redis uses, of what its maxmemory counts; the same from every pod.",
    registry=REGISTRY,
)
REDIS_MEMORY_LIMIT = Gauge(
    "lock_worker_redis_memory_max_bytes",
    "The maxmemory of Redis; 0 for no limit. A full server refuses new jobs; the same from every pod.",
    registry=REGISTRY,
)


@cache
def finished(outcome: str) -> Counter:
    """The counter of an outcome. It is asked for with each job, and the metric itself would look it up each time."""
    return FINISHED.labels(outcome)
