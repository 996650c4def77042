"""Decides on jobs outside their runs: is a message a job, has its time come, and how does it end without a call?

Celery's own ways to refuse a message (unknown task, decoding, expiry) acknowledge it without an event and write its
body to the log. kombu and Celery never see a message here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from tasks import history, progress
from tasks.decision import Later
from tasks.message import Accepted, Rejection
from tasks.run import Run
from worker.broker.move_limits import MAX_MESSAGE_BYTES
from worker.observe import metrics
from worker.runtime import job_ids
from worker.runtime.in_flight import Held

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tasks.decision import Decision, Finished
    from tasks.handler import LockConversation
    from tasks.job import Job
    from tasks.message import ParsedJob
    from worker.broker.records import Claim
    from worker.message.controls import Control, Note
    from worker.message.decode import Decode
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import Assignment, Tracer

logger = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """The job is not ours any more: another worker may have it, so nothing is called or published for it."""


class RevokedError(Exception):
    """The job was revoked while it waited for its next call, so that call is not made."""


class OperatorControls(Protocol):
    """What operators asked for."""

    def of(self, job: Job) -> Control | None:
        """Return what is in force for a job: a cancel, or else a hold; None: nothing is."""


class JobHeldError(Exception):
    """Jobs like this one are held by now, so its next call is not made. ``hold``: the digest of the hold's selector."""

    def __init__(self, hold: str) -> None:
        super().__init__(hold)
        self.hold = hold


class JobCancelledError(Exception):
    """The job was cancelled while it waited for its next call, so that call is not made. ``note``: by whom, and why."""

    def __init__(self, note: Note) -> None:
        super().__init__(note.by)
        self.note = note


class LookAhead(Protocol):
    """Parses a message before it is taken."""

    def __call__(self, raw: bytes, *, now: datetime) -> ParsedJob:
        """Parse the message."""


class Admission:
    """Reads jobs and decides on them.

    Args:
        read: parses messages.
        look_ahead: parses a message before it is taken.
        handler: decides on jobs, and its reporter ends them.
        clock: the server's clock.
        max_age_seconds: how old a job may become; 0: no bound.
        controls: what operators asked for.
        tracer: records deliveries; None: nothing does.
    """

    def __init__(
        self,
        *,
        read: Decode,
        look_ahead: LookAhead,
        handler: LockConversation,
        clock: ServerClock,
        max_age_seconds: float,
        controls: OperatorControls,
        tracer: Tracer | None = None,
    ) -> None:
        self._read = read
        self._look_ahead = look_ahead
        self._handler = handler
        self._clock = clock
        self._max_age_ms = max_age_seconds * 1000
        self._controls = controls
        self._tracer = tracer
        self._warned: set[str] = set()
        self._warned_of_time: set[str] = set()

    def admit(self, assignment: Assignment, now: datetime, *, may_call: bool = True) -> Decision | Held | None:
        """Parse a message; return the decision that needs no run, or None for a job to be run now.

        ``may_call``: flow control let the job be taken. A job that it did not is released instead of being called.
        """
        job = self._read_message(assignment, now)
        if isinstance(job, Rejection):
            return self._handler.reporter.rejected(job, self.run_of(assignment))
        self._warn_of_options(job)
        controlled = self._controlled(assignment, job)
        if controlled is not None:
            return controlled
        if job.not_before is not None:
            wait = (job.not_before - now).total_seconds()
            if wait > 0:
                return Later(wait, history.ETA)
        if not may_call and not self._handler.ends_without_call(job, self.run_of(assignment)):
            return Later(0, "requeued")
        return None

    def _warn_of_options(self, job: Accepted) -> None:
        """Warn of each option that has no effect, or of each time without a zone, once."""
        for option in job.ignored:
            metrics.IGNORED_OPTIONS.labels(option).inc()
            if option not in self._warned:
                self._warned.add(option)
                logger.warning("option_ignored", extra={"option": option, "job": job.id})
        for option in job.naive_times:
            if option not in self._warned_of_time:
                self._warned_of_time.add(option)
                logger.warning("naive_time_read_as_utc", extra={"option": option, "job": job.id})

    def _controlled(self, assignment: Assignment, job: Accepted) -> Decision | Held | None:
        """Return what operators asked for about a job; None: nothing."""
        control = self._controls.of(job.job)
        if control is None:
            return None
        if control.kind == "cancel":
            return self.cancelled(assignment, control.note)
        return Held(control.selector.digest)

    def run_of(self, assignment: Assignment, is_revoked: Callable[[str], bool] | None = None) -> Run:
        """Return a run of a job for the handler; ``is_revoked`` is asked before each call."""
        delivery, job = assignment.delivery, assignment.parsed

        async def before_call() -> None:
            # Redis was away, and the lease may have expired: the next renewal says whose the job is.
            while time.monotonic() >= delivery.lease_until and not delivery.lease_lost:  # noqa: ASYNC110 - once in an outage
                await asyncio.sleep(0.05)
            if delivery.lease_lost:
                raise LeaseLostError
            # After that wait, during which somebody may have asked for it: nobody looks again before the call.
            if is_revoked is not None and is_revoked(job.id):
                raise RevokedError
            self._raise_if_controlled(assignment)
            delivery.has_permit = False  # the call uses it

        known = progress.from_bytes(delivery.progress)
        # A worker that died, or was stopped, in the middle of a call left no record of it.
        known.may_be_at_work |= delivery.crashes > 0 or (delivery.attempts > 0 and not known.knows_calls)
        if assignment.trace is not None:
            known.deliveries = assignment.trace.number - delivery.crashes
        deadline = self.deadline_ms(assignment)
        return Run(
            job=job.id,
            key=(delivery.queue, delivery.ref),
            counter=delivery,
            received_at=self._clock.at(delivery.received_ms),
            ends_at=self._clock.at(deadline + self._clock.ages_behind_ms) if deadline else None,
            clock=self._clock.now,
            before_call=before_call,
            progress=known,
            is_retry=delivery.is_retry or delivery.attempts > 0,
            is_probe=delivery.is_probe,
            is_newest=delivery.is_newest,
            trace=assignment.trace,
        )

    def keep_progress(self, assignment: Assignment) -> None:
        """Note what a job that is put off without a run has come to: its next delivery goes on from there."""
        assignment.delivery.progress = self.run_of(assignment).progress.to_bytes()

    def _raise_if_controlled(self, assignment: Assignment) -> None:
        """Raise if an operator holds or has cancelled a job that is about to be called."""
        if assignment.cancel_note is not None:
            raise JobCancelledError(assignment.cancel_note)
        control = self._controls.of(assignment.accepted.job)
        if control is not None and control.kind == "cancel":
            raise JobCancelledError(control.note)
        if control is not None:
            raise JobHeldError(control.selector.digest)

    def deadline_ms(self, assignment: Assignment) -> int:
        """Return when a job is too old, in milliseconds of the clock of ages; 0: never."""
        if not self._max_age_ms:
            return 0
        job, received_ms = assignment.parsed, assignment.delivery.received_ms
        not_before = job.not_before if isinstance(job, Accepted) else None
        begin: float = received_ms + assignment.delivery.age_offset_ms
        if not_before is not None:
            begin = max(begin, not_before.timestamp() * 1000 - self._clock.ages_behind_ms)
        return round(begin + self._max_age_ms)

    def failed(self, assignment: Assignment, error: Exception, run: Run | None = None) -> Decision:
        """Decide on a job that an error of the worker's own interrupted; it counts as a call.

        ``run`` is the interrupted run of the job; None: it was not begun.
        """
        metrics.ERRORS.inc()
        job = assignment.parsed
        logger.error("job_error", exc_info=error, extra={"job": job.id, "conversation": job.subject})
        run = run or self.run_of(assignment)
        decision = self._handler.failed(job, run, error)
        assignment.delivery.progress = run.progress.to_bytes()
        return decision

    def revoked(self, assignment: Assignment, run: Run | None = None) -> Finished:
        """End a job that was revoked through Celery. ``run`` as for :meth:`failed`."""
        return self._handler.reporter.revoked(assignment.parsed, run or self.run_of(assignment))

    def cancelled(self, assignment: Assignment, note: Note, run: Run | None = None) -> Finished:
        """End a job that an operator cancelled, or that was revoked through Celery. ``run`` as for :meth:`failed`."""
        reporter, run = self._handler.reporter, run or self.run_of(assignment)
        if note.is_revoke:
            return reporter.revoked(assignment.parsed, run)
        return reporter.cancelled(assignment.parsed, run, by=note.by, why=note.reason)

    def conflicting(self, assignment: Assignment) -> Finished:
        """End a job whose id stands for another conversation."""
        return self._handler.reporter.conflicting(assignment.parsed, self.run_of(assignment))

    def claim_of(self, raw: bytes) -> Claim | None:
        """Return the claim to send with the take of a message; None: its job needs none then."""
        if len(raw) > MAX_MESSAGE_BYTES:
            return None
        job = self._look_ahead(raw, now=self._clock.now())
        is_for_later = isinstance(job, Accepted) and job.not_before is not None
        return None if is_for_later else job_ids.to_claim(job)

    def id_of(self, raw: bytes) -> str:
        """Return the id of the job in a message, for people."""
        return self._read(raw, size=len(raw), now=self._clock.now()).id

    def poisoned(self, assignment: Assignment) -> Finished:
        """End a job that too many workers died on, and that was not read yet."""
        job = self._read_message(assignment, self._clock.now())
        return self._handler.reporter.poisoned(job, self.run_of(assignment), assignment.delivery.crashes)

    def _read_message(self, assignment: Assignment, now: datetime) -> ParsedJob:
        delivery = assignment.delivery
        read = self._read(delivery.raw, size=delivery.size, now=now)
        job = assignment.read = job_ids.with_lasting_id(read, delivery)
        if self._tracer is not None:
            assignment.trace = self._tracer.begin(job, delivery)
        return job
