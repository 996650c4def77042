"""Logs and counts how each job left this worker."""

from __future__ import annotations

import logging
from collections import Counter
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING

from tasks import drift
from tasks.message import Accepted
from worker.observe import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tasks.decision import Later
    from tasks.drift import Deviation
    from tasks.event import Event
    from tasks.message import ParsedJob
    from tasks.outcome import Problem
    from tasks.retry import RetryDetails
    from worker.broker.records import Recovered

logger = logging.getLogger(__name__)

#: A line names at most this many of the workers that were lost together.
_WORKERS_NAMED = 10
_released: Counter[str] = Counter()


def finished(job: ParsedJob, event: Event, *, attempts: int, seconds: float) -> None:
    """Record that a job's event is published, so many seconds after its first take, or its eta."""
    metrics.finished(event.outcome).inc()
    metrics.SECONDS.observe(seconds)
    logger.log(
        logging.WARNING if event.failed else logging.INFO,
        "job_finished",
        extra={
            "job": job.id,
            "conversation": job.subject,
            "outcome": event.outcome,
            "attempts": attempts,
            "status": None if event.problem is None else event.problem.status,
            "error": _reason(event.problem),
            "seconds": round(seconds, 3),
        },
    )


def _reason(problem: Problem | None) -> str | None:
    """Return a stable label for what went wrong: the event's error type, except for a refused token (401)."""
    if problem is not None and problem.status == HTTPStatus.UNAUTHORIZED:
        return "token_refused"
    return None if problem is None else problem.type.value


def called(status: int | None, seconds: float) -> None:
    """Record that a call of the API is over: its HTTP status (None: no answer), and how long it took."""
    metrics.api_calls(status).inc()
    metrics.API_SECONDS.observe(seconds)


def started(job: ParsedJob, now: datetime, *, is_first: bool) -> None:
    """Record that a job is about to be called: how late, if it had an eta and was not called before."""
    if is_first and isinstance(job, Accepted) and job.not_before is not None:
        metrics.LATENESS.observe(max(0.0, (now - job.not_before).total_seconds()))


def retried(retry: RetryDetails) -> None:
    """Record that a call for a job failed, and that it waits for the next one."""
    metrics.RETRIES.labels(retry.reason).inc()
    logger.info(
        "job_retry",
        extra={
            "job": retry.job,
            "conversation": retry.conversation,
            "attempt": retry.attempt,
            "reason": retry.reason,
            "status": retry.status,
            "wait": round(retry.wait_seconds, 3),
            "where": retry.where,
        },
    )


def answer_drifted(job: str, deviations: Sequence[Deviation]) -> None:
    """Record where an answer that confirms a lock deviates from the documented shape."""
    for field in {deviation.field for deviation in deviations}:
        metrics.ANSWER_DRIFT.labels(field).inc()
    drift.log(job, deviations)


def delayed(job: ParsedJob, later: Later, *, attempts: int, status: int | None) -> None:
    """Record that a job was delayed in Redis. A retry is not recorded again: :func:`retried` has done so.

    ``status`` is the HTTP status of the job's last call; None if it was not called, or not answered.
    """
    if later.is_retry:
        return
    metrics.DELAYED.labels(later.reason).inc()
    logger.info(
        "job_delayed",
        extra={
            "job": job.id,
            "conversation": job.subject,
            "reason": later.reason,
            "attempts": attempts,
            "status": status,
            "wait": round(later.delay, 3),
        },
    )


def held(job: ParsedJob) -> None:
    """Record that a job was set aside, because an operator holds jobs like it."""
    metrics.HELD.inc()
    logger.info("job_held", extra={"job": job.id, "conversation": job.subject})


def duplicate_dropped(job: ParsedJob, first_outcome: str | None) -> None:
    """Record that a job was dropped as a duplicate of one whose event is published.

    ``first_outcome`` is the outcome of the first one if it ended without a lock. Then the line is a warning: a producer
    that sent the job again may expect a lock, and no event says that there is none.
    """
    metrics.DUPLICATES.inc()
    if first_outcome is None:
        logger.info("job_duplicate_dropped", extra={"job": job.id, "conversation": job.subject})
    else:
        fields = {"job": job.id, "conversation": job.subject, "first_outcome": first_outcome}
        logger.warning("job_duplicate_dropped", extra=fields)


def settled_elsewhere(job: ParsedJob) -> None:
    """Record that this worker no longer had the job when it completed, delayed or released it."""
    metrics.LOST.inc()
    logger.info("job_settled_elsewhere", extra={"job": job.id, "conversation": job.subject})


def released() -> None:
    """Record that this worker gave a job back to its queue."""
    _released["jobs"] += 1


def released_so_far() -> int:
    """Return how many jobs this process gave back."""
    return _released["jobs"]


def lease_lost(job: ParsedJob) -> None:
    """Record that this worker no longer had the job when it was about to call the API for it."""
    metrics.LOST.inc()
    logger.warning("lease_lost", extra={"job": job.id, "conversation": job.subject})


def recovered(queue: str, result: Recovered, ids: Sequence[str]) -> None:
    """Record that jobs of lost workers are ready again, or are to be completed as poisoned.

    ``ids`` are the ids of some of the jobs. The log of a lost worker, if there is one, says which of them it had.
    """
    metrics.RECOVERED.inc(result.count or 0)
    logger.warning(
        "jobs_recovered",
        extra={
            "queue": queue,
            "jobs": result.count,
            "poisoned": len(result.poisoned),
            "job_ids": list(ids),
            "workers": len(result.workers),
            "jobs_by_worker": dict(islice(result.workers.items(), _WORKERS_NAMED)),
        },
    )
