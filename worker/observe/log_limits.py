"""Bounds how often a warning or an error of one kind is logged: first at once, then once a minute with a count.

What can happen to each job, each call or twice a second would otherwise bury everything else: a producer that repeats
itself, a worker that stalled with a hundred jobs, an error of the worker's own in a loop. :data:`LIMITS` names these
events. All others are logged as they come, because they happen rarely, or because ``worker.observe.outages`` and
``worker.observe.trouble`` bound them.

``job_finished`` and ``job_duplicate_dropped`` have no limit: each is the only line on its job. A failed job has a
warning, and so has a duplicate of a job that ended without a lock, whose producer may wait for another try in vain.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.observe.log_record import Record
from worker.observe.loop_service import LoopService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MINUTE = 60.0
_HOUR = 3600.0
#: Kinds that are counted at once, at most; the oldest is forgotten.
_MAX_KINDS = 500
#: How often a worker looks for counts that are due, in seconds.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    """How often an event is logged as a warning or an error.

    Attributes:
        seconds: the time between two lines with a count.
        at_once: lines that are logged as they come, before counting begins.
        by: fields that tell kinds of the event apart; each kind has a limit of its own. Their values must be few.
        is_of_a_job: each one is about another job, so those that are only counted are logged at INFO too, without a
            traceback.
    """

    seconds: float = _MINUTE
    at_once: int = 1
    by: tuple[str, ...] = ()
    is_of_a_job: bool = False


_OF_A_JOB = Limit(at_once=10, is_of_a_job=True)
_OF_A_COMMAND = Limit(at_once=10)
_ONCE_A_MINUTE = Limit()

LIMITS: Mapping[str, Limit] = {
    "answer_drift": Limit(seconds=_HOUR, by=("field",)),
    "attempts_not_restored": _ONCE_A_MINUTE,
    "binding_not_noted": _ONCE_A_MINUTE,
    "control_not_answered": _ONCE_A_MINUTE,
    "control_refused": _OF_A_COMMAND,
    "conversation_left_out": _OF_A_JOB,
    "fleet_not_watched": _ONCE_A_MINUTE,
    "health_error": _ONCE_A_MINUTE,
    "ignored_error": _OF_A_COMMAND,
    "intake_error": _OF_A_JOB,
    "job_error": _OF_A_JOB,
    "jobs_need_newer_worker": Limit(by=("queue",)),
    "jobs_recovered": _OF_A_JOB,
    "lease_lost": _OF_A_JOB,
    "leases_not_renewed": _ONCE_A_MINUTE,
    "leftovers_not_looked_for": _ONCE_A_MINUTE,
    "loop_error": _OF_A_COMMAND,
    "maintenance_failed": _ONCE_A_MINUTE,
    "not_registered": _ONCE_A_MINUTE,
    "pool_limited": _OF_A_COMMAND,
    "primary_not_watched": _ONCE_A_MINUTE,
    "queue_refused": _OF_A_COMMAND,
    "redis_retry": Limit(by=("move",)),
    "systemd_notifier_failed": _ONCE_A_MINUTE,
    "take_error": _ONCE_A_MINUTE,
}


@dataclass(slots=True)
class _Kind:
    """What was logged of one kind of event lately."""

    began_at: float
    logged: int = 0
    #: Those that were not, and the last of them.
    counted: int = 0
    last: dict[str, Any] = field(default_factory=dict)


class _Summary(Record):
    """The line that tells how many were only counted."""


class LogLimits(logging.Filter):
    """A filter of a handler that keeps to the limits; thread-safe.

    A line with the field ``count`` stands for so many since the line before, in ``seconds``.

    Args:
        limits: those of each event.
        now: returns the seconds of a monotonic clock.
    """

    def __init__(self, limits: Mapping[str, Limit] = LIMITS, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._limits = limits
        self._now = now
        self._lock = threading.RLock()  # a signal handler may log while its thread is in here
        self._kinds: dict[tuple[str, ...], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; one that is only counted may become a line at INFO."""
        if record.levelno < logging.WARNING or isinstance(record, _Summary):
            return True
        limit = self._limits.get(record.msg) if isinstance(record.msg, str) else None
        return limit is None or self._is_within(limit, record)

    def flush(self, *, is_end: bool = False) -> None:
        """Log the counts that are due; all of them at the end of the process."""
        now = self._now()
        with self._lock:
            due = [
                (name, kind)
                for name, kind in self._kinds.items()
                if is_end or now - kind.began_at >= self._limits[name[0]].seconds
            ]
            for name, kind in due:
                self._kinds.pop(name, None)
                if kind.counted:
                    summary = _summary(kind.last, kind.counted, now - kind.began_at)
                    # It is the line of the time that begins now.
                    self._kinds[name] = _Kind(now, logged=self._limits[name[0]].at_once)
                    logging.getLogger(summary.name).handle(summary)

    def _is_within(self, limit: Limit, record: logging.LogRecord) -> bool:
        fields = vars(record)
        name = (record.msg, *(str(fields.get(each)) for each in limit.by))
        now = self._now()
        with self._lock:
            kind = self._kinds.get(name)
            counted = 0
            if kind is None or now - kind.began_at >= limit.seconds:
                if kind is not None:
                    counted, seconds = kind.counted, now - kind.began_at
                    self._kinds.pop(name)
                kind = self._kinds[name] = _Kind(now, logged=limit.at_once - 1 if counted else 0)
                if len(self._kinds) > _MAX_KINDS:
                    del self._kinds[next(iter(self._kinds))]
            if kind.logged < limit.at_once:
                kind.logged += 1
                if counted:
                    fields.update(count=counted + 1, seconds=round(seconds, 1))
                return True
            kind.counted += 1
            kind.last = dict(fields)
        return limit.is_of_a_job and _at_info(record)


def _summary(fields: dict[str, Any], count: int, seconds: float) -> _Summary:
    summary = _Summary("", 0, "", 0, "", (), None)
    vars(summary).update(fields, exc_info=None, created=time.time(), count=count, seconds=round(seconds, 1))
    return summary


def _at_info(record: logging.LogRecord) -> bool:
    """Make a record one of level INFO without a traceback; returns whether that level is logged."""
    record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
    return logging.getLogger().isEnabledFor(logging.INFO)


#: The limits of this process.
log_limits = LogLimits()


class LogSummaries(LoopService):
    """Logs the counts of :data:`log_limits` when they are due."""

    async def stop(self) -> None:
        """End, and log all counts."""
        await super().stop()
        log_limits.flush(is_end=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            log_limits.flush()
