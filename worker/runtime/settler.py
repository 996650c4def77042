"""Settles jobs: each leaves this worker completed, delayed or released, and is in flight until Redis has confirmed it.

Jobs that are settled at about the same time go to Redis in one call for each queue (``worker.runtime.batcher``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from tasks import history, progress
from tasks.decision import Decision, Finished, Later
from worker.broker.records import CompleteAnswer, Completion, Delay, Duplicate
from worker.observe import jobs
from worker.runtime import job_ids
from worker.runtime.batcher import Batcher
from worker.runtime.in_flight import Held
from worker.runtime.settlement import Completed, Delayed, Ignored, SetAside, Settlement

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.event import Event
    from worker.broker.job_moves import JobMoves
    from worker.broker.records import Delivery
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import Assignment, DeliveryTrace, InFlight


class Gates(Protocol):
    """Flow control, as far as it is concerned with jobs that make no call."""

    def give_back_permit(self, delivery: Delivery) -> None:
        """Give back the permit or the probe that a job was taken by."""

    def set_aside(self, delivery: Delivery) -> None:
        """Record that a job is on hold, and makes no call."""


class Reports(Protocol):
    """Where Celery hears of jobs that left this worker."""

    def settled(self, assignment: Assignment, how: Settlement) -> None:
        """Note how a job left this worker."""

    def flush_soon(self) -> None:
        """Report to Celery what was noted."""


class SettlementListener(Protocol):
    """Hears what Redis answered."""

    def completed(self, assignment: Assignment, answer: CompleteAnswer | Duplicate) -> None:
        """Redis answered a completion."""

    def delayed(self, assignment: Assignment, later: Later, *, is_ours: bool) -> None:
        """Redis answered a delay; ``is_ours`` is False if the job was not ours any more."""

    def held(self, assignment: Assignment, *, is_ours: bool) -> None:
        """Redis answered a hold; ``is_ours`` is False if the job was not ours any more."""

    def released(self, assignment: Assignment) -> None:
        """Redis answered a release; if the job was not ours any more, another worker has it already."""


class QueueBatches:
    """The batches of one queue: completions, delays, holds and releases on their way to Redis."""

    def __init__(self, moves: JobMoves, listener: SettlementListener) -> None:
        self.hold: Batcher[tuple[Assignment, str], bool] = Batcher(
            "hold",
            lambda batch: moves.hold([(assignment.delivery, hold) for assignment, hold in batch]),
            queue=moves.keys.queue,
            weigh=lambda _: 0,
            settled=lambda item, is_ours: listener.held(item[0], is_ours=is_ours),
        )
        self.complete: Batcher[tuple[Assignment, Completion], CompleteAnswer | Duplicate] = Batcher(
            "complete",
            lambda batch: moves.complete([completion for _, completion in batch]),
            queue=moves.keys.queue,
            weigh=lambda item: len(item[1].event),
            settled=lambda item, answer: listener.completed(item[0], answer),
        )
        self.delay: Batcher[tuple[Assignment, Later], bool] = Batcher(
            "delay",
            lambda batch: moves.delay([_delay(assignment, later) for assignment, later in batch]),
            queue=moves.keys.queue,
            weigh=lambda _: 0,
            settled=lambda item, is_ours: listener.delayed(item[0], item[1], is_ours=is_ours),
        )
        self.release: Batcher[Assignment, bool] = Batcher(
            "release",
            lambda batch: moves.release([assignment.delivery for assignment in batch]),
            queue=moves.keys.queue,
            weigh=lambda _: 0,
            settled=lambda assignment, _: listener.released(assignment),
        )


class Settler:
    """Settles the jobs of one worker.

    Args:
        batches: returns the batches of a queue.
        in_flight: the jobs in flight; a settled one is removed.
        clock: the server's clock.
        gates: gets back what a job was taken by that makes no call.
        gates_changed: called when something was given back, so that the fetcher asks the gates again.
        slots_freed: called when a job has left this worker.
        reports: hears of each job that has left this worker.
    """

    def __init__(
        self,
        *,
        batches: Callable[[str], QueueBatches],
        in_flight: InFlight,
        clock: ServerClock,
        gates: Gates,
        gates_changed: Callable[[], None],
        slots_freed: Callable[[], None],
        reports: Reports,
    ) -> None:
        self._batches = batches
        self._in_flight = in_flight
        self._clock = clock
        self._gates = gates
        self._gates_changed = gates_changed
        self._slots_freed = slots_freed
        self._reports = reports
        self._is_flush_due = False

    def settle(self, assignment: Assignment, decision: Decision | Held, *, is_conflict: bool = False) -> None:
        """Carry out what was decided: complete the job, delay it, or set it aside."""
        self._give_permit_back(assignment.delivery)
        batches = self._batches(assignment.delivery.queue)
        match decision:
            case Finished(event):
                assignment.decision = decision
                batches.complete.put((assignment, _completion(assignment, event, is_conflict=is_conflict)))
            case Later(seconds, reason):
                if reason == history.ETA:
                    self._tell_of_delay(assignment.delivery, reason, seconds)
                batches.delay.put((assignment, decision))
            case Held(hold):
                self._tell_of_delay(assignment.delivery, history.HOLD, None)
                batches.hold.put((assignment, hold))
                self._in_flight.set_aside(assignment)
                self._gates.set_aside(assignment.delivery)
                self._slots_freed()

    def _tell_of_delay(self, delivery: Delivery, reason: str, seconds: float | None) -> None:
        """Add a delay without a call to the job's history."""
        known = progress.from_bytes(delivery.progress)
        known.history = history.with_delay(known.history, self._clock.now(), reason=reason, seconds=seconds)
        delivery.progress = known.to_bytes()

    def settle_under_its_own_id(self, assignment: Assignment, event: Event, *, is_conflict: bool) -> None:
        """Complete a job whose id names another event already: its event gets an id of its own."""
        own_id = job_ids.own_event_id(assignment.parsed, is_conflict=is_conflict)
        self.settle(assignment, Finished(event.under(own_id)), is_conflict=is_conflict)

    def drop_duplicate(self, assignment: Assignment) -> None:
        """Remove a duplicate of a job whose event is out; it gets no event."""
        self._give_permit_back(assignment.delivery)
        delivery = assignment.delivery
        end = job_ids.to_remember(assignment.parsed, is_conflict=False, has_own_id=False)
        completion = Completion(delivery.ref, delivery.lease_token, b"", "", False, *end)  # noqa: FBT003 - no dead letter
        self._batches(delivery.queue).complete.put((assignment, completion))

    def release(self, assignment: Assignment) -> None:
        """Give a job back to its queue, to be taken again at once."""
        self._give_permit_back(assignment.delivery)
        self._batches(assignment.delivery.queue).release.put(assignment)

    def lost(self, assignment: Assignment) -> None:
        """Let go of a job whose lease was lost before its call: another worker has it."""
        self._give_permit_back(assignment.delivery)
        jobs.lease_lost(assignment.parsed)
        self._settled(assignment, Ignored("lease_lost"))

    # -- what Redis answered --

    def completed(self, assignment: Assignment, answer: CompleteAnswer | Duplicate) -> None:
        """Redis answered a completion."""
        if answer is CompleteAnswer.PUBLISHED and isinstance(assignment.decision, Finished):
            event, delivery = assignment.decision.event, assignment.delivery
            seconds = (self._clock.now_ms() - assignment.due_ms) / 1000
            jobs.finished(assignment.parsed, event, attempts=delivery.attempts, seconds=max(0.0, seconds))
            problem = event.problem if event.failed else None
            detail, error = (problem.detail, problem.type.value) if problem else (None, None)
            self._settled(assignment, Completed(event.outcome, detail, error))
        elif isinstance(answer, Duplicate):
            jobs.duplicate_dropped(assignment.parsed, answer.first_outcome)
            self._settled(assignment, Ignored("duplicate"))
        elif answer is not CompleteAnswer.GONE and isinstance(assignment.decision, Finished):
            is_conflict = answer is CompleteAnswer.CONFLICT
            self.settle_under_its_own_id(assignment, assignment.decision.event, is_conflict=is_conflict)
        else:
            jobs.settled_elsewhere(assignment.parsed)
            self._settled(assignment, Ignored("settled_elsewhere"))

    def delayed(self, assignment: Assignment, later: Later, *, is_ours: bool) -> None:
        """Redis answered a delay; ``is_ours`` is False if the job was not ours any more."""
        if is_ours:
            delivery = assignment.delivery
            problem = progress.from_bytes(delivery.progress).problem
            status = None if problem is None else problem.status
            jobs.delayed(assignment.parsed, later, attempts=delivery.attempts, status=status)
            self._settled(assignment, Delayed(later.delay, later.reason, later.is_retry))
        else:
            jobs.settled_elsewhere(assignment.parsed)
            self._settled(assignment, Ignored("settled_elsewhere"))

    def held(self, assignment: Assignment, *, is_ours: bool) -> None:
        """Redis answered a hold; ``is_ours`` is False if the job was not ours any more."""
        if is_ours:
            jobs.held(assignment.parsed)
            self._settled(assignment, SetAside())
        else:
            jobs.settled_elsewhere(assignment.parsed)
            self._settled(assignment, Ignored("settled_elsewhere"))

    def released(self, assignment: Assignment) -> None:
        """Redis answered a release; if the job was not ours any more, another worker has it already."""
        jobs.released()
        self._settled(assignment, Ignored("released"))

    def _settled(self, assignment: Assignment, how: Settlement) -> None:
        self._in_flight.remove(assignment.delivery)
        self._slots_freed()
        if assignment.trace is not None:
            _record(assignment.trace, how, attempts=assignment.delivery.attempts)
        self._reports.settled(assignment, how)
        if assignment.announced is not None and not self._is_flush_due:
            # One report for all jobs that are settled in this turn of the loop.
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._reports.flush_soon()

    def _give_permit_back(self, delivery: Delivery) -> None:
        """Give back the permit or the probe, which is for calls, of a job that made none."""
        if delivery.has_permit:
            delivery.has_permit = False
            self._gates.give_back_permit(delivery)
            self._gates_changed()


def _record(trace: DeliveryTrace, how: Settlement, *, attempts: int) -> None:
    match how:
        case Completed():
            trace.ended(how.outcome, attempts=attempts, error=how.error)
        case Delayed():
            error = how.reason if how.is_retry else None
            trace.ended("delayed", attempts=attempts, error=error, reason=how.reason, seconds=how.seconds)
        case SetAside():
            trace.ended("held", attempts=attempts)
        case Ignored():
            trace.ended(how.why, attempts=attempts)


def _delay(assignment: Assignment, later: Later) -> Delay:
    delivery = assignment.delivery
    return Delay(
        delivery, later.delay, is_retry=later.is_retry, deadline_ms=assignment.deadline_ms, progress=delivery.progress
    )


def _completion(assignment: Assignment, event: Event, *, is_conflict: bool) -> Completion:
    delivery, job = assignment.delivery, assignment.parsed
    has_own_id = event.id != job.id
    end = job_ids.to_remember(job, is_conflict=is_conflict, has_own_id=has_own_id)
    return Completion(
        ref=delivery.ref,
        lease_token=delivery.lease_token,
        event=event.body,
        outcome=event.outcome,
        is_dead_letter=event.failed,
        id_digest=end.id_digest,
        fingerprint=end.fingerprint,
        is_dry_run=end.is_dry_run,
        has_own_id=has_own_id,
    )
