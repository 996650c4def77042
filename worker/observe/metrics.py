"""Declares every metric of the worker for Prometheus.

Counters count this process since its start. The totals of the whole fleet are in Redis; ``lock-worker status`` shows
them.
"""

from __future__ import annotations

from functools import cache
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tasks.outcome import OutcomeName
from tasks.retry import RETRY_REASONS

REGISTRY = CollectorRegistry()

FINISHED = Counter(
    "lock_worker_jobs_finished", "Jobs whose result event is published, by outcome.", ["outcome"], registry=REGISTRY
)
DELAYED = Counter(
    "lock_worker_jobs_delayed",
    "Times that a job was delayed in Redis before a call, by reason: its eta has not come, or calls are held back.",
    ["reason"],
    registry=REGISTRY,
)
RETRIES = Counter(
    "lock_worker_job_retries",
    "Calls that failed and whose job waits for another one, in its slot or in Redis, by reason.",
    ["reason"],
    registry=REGISTRY,
)
DUPLICATES = Counter(
    "lock_worker_duplicates_dropped",
    "Duplicates that were dropped, because their job was completed before.",
    registry=REGISTRY,
)
LOST = Counter(
    "lock_worker_leases_lost",
    "Jobs that another worker had by the time this one was about to call the API for them or to settle them.",
    registry=REGISTRY,
)
ERRORS = Counter("lock_worker_job_errors", "Errors inside the worker that interrupted a job.", registry=REGISTRY)
IGNORED_OPTIONS = Counter(
    "lock_worker_options_ignored", "Message options that have no effect, by option.", ["option"], registry=REGISTRY
)
SECONDS = Histogram(
    "lock_worker_job_seconds",
    "Seconds from the first take of a job to its result event, its waits included.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
    registry=REGISTRY,
)
IN_FLIGHT = Gauge("lock_worker_jobs_in_flight", "Jobs that this process has now.", registry=REGISTRY)
CONCURRENCY = Gauge("lock_worker_concurrency", "The most jobs that this process runs at once.", registry=REGISTRY)
BREAKER_OPEN = Gauge(
    "lock_worker_breaker_open",
    "1 while a breaker of this process is open and only probes pass, by reason.",
    ["reason"],
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
RESULTS_EVENTS = Gauge(
    "lock_worker_results_stream_events", "Events in the results stream; the same from every pod.", registry=REGISTRY
)
RESULTS_BYTES = Gauge(
    "lock_worker_results_stream_bytes",
    "Bytes of Redis that the results stream takes, approximately; compare with RESULTS_MAX_BYTES; the same from every "
    "pod.",
    registry=REGISTRY,
)
RESULTS_OLDEST = Gauge(
    "lock_worker_results_oldest_seconds",
    "Age of the oldest event in the results stream: a consumer that is down for longer loses events once the stream is "
    "full; the same from every pod.",
    registry=REGISTRY,
)
RESULTS_GROUP_LAG = Gauge(
    "lock_worker_results_group_lag",
    "Events in the results stream not delivered to a consumer group yet, of the 20 slowest groups; the same from "
    "every pod.",
    ["group"],
    registry=REGISTRY,
)
REDIS_MEMORY_USED = Gauge(
    "lock_worker_redis_memory_used_bytes",
    "Memory that Redis uses, as its maxmemory counts it; the same from every pod.",
    registry=REGISTRY,
)
REDIS_MEMORY_LIMIT = Gauge(
    "lock_worker_redis_memory_max_bytes",
    "The maxmemory of Redis; 0 for no limit. A full server refuses new jobs; the same from every pod.",
    registry=REGISTRY,
)


@cache
def finished(outcome: str) -> Counter:
    """Return the counter of an outcome. It is cached, because each job needs it."""
    return FINISHED.labels(outcome)


# Every series stands at 0 from the start, so that its first increase is seen as one.
for _outcome in get_args(OutcomeName):
    finished(_outcome)
for _reason in ("eta", "requeued"):
    DELAYED.labels(_reason)
for _reason in RETRY_REASONS:
    RETRIES.labels(_reason)
