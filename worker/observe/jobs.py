"""How a job left this worker, as its log line and its counters tell it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING

from worker.observe import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.decision import Later
    from tasks.event import Event
    from tasks.message import ParsedJob
    from tasks.outcome import Problem
    from worker.broker.records import Recovered

logger = logging.getLogger(__name__)

#: Of the workers that were lost at once, a line names so many.
_WORKERS_NAMED = 10


def finished(job: ParsedJob, event: Event, *, attempts: int, seconds: float) -> None:
    """Its event is out, so many seconds after it was first taken."""
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
            "error": _reason(event.problem),
            "seconds": round(seconds, 3),
        },
    )


def _reason(problem: Problem | None) -> str | None:
    """The stable word for what went wrong: the event's error type, but for a refused token, which is no 403."""
    if problem is not None and problem.status == HTTPStatus.UNAUTHORIZED:
        return "token_refused"
    return None if problem is None else problem.type.value


def delayed(job: ParsedJob, later: Later, *, attempts: int) -> None:
    """It was put aside in Redis."""
    metrics.DELAYED.labels(later.reason).inc()
    logger.info(
        "job_delayed",
        extra={
            "job": job.id,
            "reason": later.reason,
            "attempts": attempts,
            "wait_seconds": round(later.delay, 3),
        },
    )


def duplicate_dropped(job: ParsedJob, first_outcome: str | None) -> None:
    """It was a copy of a job whose event is out, and which ended so if it was not locked.

    Then whoever sent it again may have hoped for a lock, and no event tells that there is none.
    """
    metrics.DUPLICATES.inc()
    if first_outcome is None:
        logger.info("job_duplicate_dropped", extra={"job": job.id})
    else:
        logger.warning("job_duplicate_dropped", extra={"job": job.id, "first_outcome": first_outcome})


def settled_elsewhere(job: ParsedJob) -> None:
    """It was not ours any more when its end was to be told."""
    metrics.LOST.inc()
    logger.info("job_settled_elsewhere", extra={"job": job.id})


def lease_lost(job: ParsedJob) -> None:
    """It was not ours any more when it was to be called."""
    metrics.LOST.inc()
    logger.warning("lease_lost", extra={"job": job.id})


def recovered(queue: str, found: Recovered, ids: Sequence[str]) -> None:
    """Jobs of workers that gave no sign of life for a lease are ready again, or are to be ended as poisoned.

    ``ids`` are those of some of the jobs. Which jobs were whose, the log of the lost worker tells, if it is left.
    """
    logger.warning(
        "jobs_recovered",
        extra={
            "queue": queue,
            "jobs": found.count,
            "poisoned": len(found.poisoned),
            "job_ids": list(ids),
            "workers": len(found.workers),
            "jobs_by_worker": dict(islice(found.workers.items(), _WORKERS_NAMED)),
        },
    )
