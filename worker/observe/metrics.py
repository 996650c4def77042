"""Declares every metric of the worker for Prometheus.

Counters count this process since its start. The totals of the whole fleet are in Redis; ``lock-worker status`` shows
them.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from tasks.drift import OTHER
from tasks.managem.conversation import DOCUMENTED_FIELDS
from tasks.message_options import IGNORED
from tasks.outcome import OutcomeName
from tasks.retry import RETRY_REASONS

# A time of creation beside each counter would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call]  # its library has no types for it

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
HELD = Counter("lock_worker_jobs_held", "Times that a job was set aside by a hold.", registry=REGISTRY)
RULES_HELD = Counter(
    "lock_worker_rules_held",
    "Times that this process held a rule that asked for more than its limit.",
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
RECOVERED = Counter(
    "lock_worker_jobs_recovered", "Jobs of lost workers that this process made ready again.", registry=REGISTRY
)
API_CALLS = Counter(
    "lock_worker_api_calls",
    "Calls of the API that are over, by the class of their answer's status; 429 is a class of its own, and no_answer a "
    "call without an answer.",
    ["status_class"],
    registry=REGISTRY,
)
API_SECONDS = Histogram(
    "lock_worker_api_call_seconds",
    "Seconds from the beginning of a call of the API to its answer, or to its failure.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
LATENESS = Histogram(
    "lock_worker_job_lateness_seconds",
    "Seconds from the eta of a job that had one to its start. Other jobs have no time that they are due at.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
    registry=REGISTRY,
)
ANSWER_DRIFT = Counter(
    "lock_worker_answer_drift",
    "Answers that confirmed a lock and deviated from the documented shape, by documented field; `other` for any other "
    "place.",
    ["field"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "lock_worker_job_seconds",
    "Seconds from the first take of a job, or from its eta if that is later, to its result event; waits included.",
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


@cache
def finished(outcome: str) -> Counter:
    """Return the counter of an outcome. It is cached, because each job needs it."""
    return FINISHED.labels(outcome)


#: The classes of ``API_CALLS``, by the first digit of the status.
_STATUS_CLASSES = {digit: f"{digit}xx" for digit in range(1, 6)}
_NO_ANSWER, _TOO_MANY_REQUESTS = "no_answer", "429"


@cache
def api_calls(status: int | None) -> Counter:
    """Return the counter of calls with a status, or without an answer (None). It is cached, as each call needs it."""
    if status is None:
        return API_CALLS.labels(_NO_ANSWER)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return API_CALLS.labels(_TOO_MANY_REQUESTS)
    return API_CALLS.labels(_STATUS_CLASSES.get(status // 100, _NO_ANSWER))


# Every series stands at 0 from the start, so that its first increase is seen as one.
for _outcome in get_args(OutcomeName):
    finished(_outcome)
for _reason in ("eta", "requeued"):
    DELAYED.labels(_reason)
for _reason in RETRY_REASONS:
    RETRIES.labels(_reason)
for _option in IGNORED:
    IGNORED_OPTIONS.labels(_option)
for _status in (None, HTTPStatus.TOO_MANY_REQUESTS, 200, 300, 400, 500):
    api_calls(_status)
for _breaker in ("api_down", "token_refused"):
    BREAKER_OPEN.labels(_breaker)
for _field in (*sorted(DOCUMENTED_FIELDS), OTHER):
    ANSWER_DRIFT.labels(_field)
