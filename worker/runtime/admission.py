"""What is decided of a job before it is run: whether it is one, and whether its time has come; and ends without a call.

Celery's own ways to refuse a message (unknown task, decoding, expiry) acknowledge it without a word and write its body
to the log. kombu and Celery never see a message here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from tasks import progress
from tasks.decision import Later
from tasks.lock_conversation import Run
from tasks.message import Rejection
from worker.observe import metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tasks.decision import Decision, Finished
    from tasks.lock_conversation import LockConversation
    from worker.broker.moves import Delivery
    from worker.message.decode import Decode
    from worker.runtime.clock import ServerClock

logger = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """The job is not ours any more: another worker may have it, so nothing is called or published for it."""


class RevokedError(Exception):
    """The job was revoked while it waited for its next call, so that call is not made."""


class Admission:
    """Reads jobs and decides on them.

    Args:
        read: reads messages.
        handler: knows how each end of a job is told.
        clock: the server's clock.
        max_age_seconds: how old a job may become; 0: no bound.
    """

    def __init__(self, *, read: Decode, handler: LockConversation, clock: ServerClock, max_age_seconds: float) -> None:
        self._read = read
        self._handler = handler
        self._clock = clock
        self._max_age_ms = max_age_seconds * 1000
        self._warned: set[str] = set()
        self._warned_of_time: set[str] = set()

    def admit(self, delivery: Delivery, now: datetime, *, may_call: bool = True) -> Decision | None:
        """Read a message; what is decided of it at once, or None where it is a job to be run now.

        ``may_call``: whether the job passed what holds takes back. One that did not goes back if it would be called.
        """
        intake = delivery.parsed = self._read(delivery.raw, size=delivery.size, now=now)
        if isinstance(intake, Rejection):
            return self._handler.rejected(intake, self.run_of(delivery))
        for option in intake.ignored:
            metrics.IGNORED_OPTIONS.labels(option).inc()
            if option not in self._warned:
                self._warned.add(option)
                logger.warning("option_ignored", extra={"option": option, "job": intake.id})
        for option in intake.naive_times:
            if option not in self._warned_of_time:
                self._warned_of_time.add(option)
                logger.warning("naive_time_read_as_utc", extra={"option": option, "job": intake.id})
        if intake.not_before is not None:
            wait = (intake.not_before - now).total_seconds()
            if wait > 0:
                return Later(wait, "eta")
        if not may_call and not self._handler.ends_without_call(intake, self.run_of(delivery)):
            return Later(0, "requeued")
        return None

    def run_of(self, delivery: Delivery, is_revoked: Callable[[str], bool] | None = None) -> Run:
        """A delivery as the handler sees it; ``is_revoked`` is asked before each call."""

        async def before_call() -> None:
            if is_revoked is not None and is_revoked(delivery.parsed.id):
                raise RevokedError
            # The server was away: whose the job is, the next renewal tells.
            while time.monotonic() >= delivery.lease_until and not delivery.lease_lost:  # noqa: ASYNC110 - once in an outage
                await asyncio.sleep(0.05)
            if delivery.lease_lost:
                raise LeaseLostError
            delivery.has_permit = False  # it is used

        known = progress.from_bytes(delivery.progress)
        # A worker that died, or was told to stop, in the middle of a call left no word of it.
        known.may_be_at_work |= delivery.crashes > 0 or (delivery.attempts > 0 and not delivery.progress)
        deadline = self.deadline_ms(delivery)
        return Run(
            job=delivery.parsed.id,
            key=(delivery.queue, delivery.ref),
            attempts=delivery.attempts,
            received_at=self._clock.at(delivery.received_ms),
            ends_at=self._clock.at(deadline) if deadline else None,
            clock=self._clock.now,
            before_call=before_call,
            progress=known,
            is_retry=delivery.is_retry or delivery.attempts > 0,
            is_probe=delivery.is_probe,
            is_newest=delivery.is_newest,
        )

    def deadline_ms(self, delivery: Delivery) -> int:
        """When a job is too old, in milliseconds of the server's clock; 0: never."""
        if not self._max_age_ms:
            return 0
        not_before = getattr(delivery.parsed, "not_before", None)
        begin = max(delivery.received_ms, not_before.timestamp() * 1000) if not_before else delivery.received_ms
        return round(begin + self._max_age_ms)

    def failed(self, delivery: Delivery, error: Exception, attempts: int) -> Decision:
        """An error of the worker's own interrupted a job; it counts as a call."""
        metrics.ERRORS.inc()
        logger.error("job_error", exc_info=error, extra={"job": delivery.parsed.id})
        run = self.run_of(delivery)
        run.attempts = max(attempts, delivery.attempts)
        decision = self._handler.failed(delivery.parsed, run, error)
        delivery.attempts, delivery.progress = run.attempts, run.progress.to_bytes()
        return decision

    def revoked(self, delivery: Delivery) -> Finished:
        """A job was revoked through Celery."""
        return self._handler.revoked(delivery.parsed, self.run_of(delivery))

    def conflicting(self, delivery: Delivery) -> Finished:
        """A job's id stands for another conversation."""
        return self._handler.conflicting(delivery.parsed, self.run_of(delivery))

    def id_of(self, raw: bytes) -> str:
        """The id of the job in a message, for people."""
        return self._read(raw, size=len(raw), now=self._clock.now()).id

    def poisoned(self, delivery: Delivery) -> Finished:
        """Too many workers died on a job, which was not read yet."""
        intake = delivery.parsed = self._read(delivery.raw, size=delivery.size, now=self._clock.now())
        return self._handler.poisoned(intake, self.run_of(delivery), delivery.crashes)
