"""One job, from the take to its settlement: read it, claim its id, run it, settle it.

This loop never blocks on Celery's thread, which stops during reconnects and shutdown. Only while task events are on are
jobs announced to Celery before they run. A job is settled when Redis has confirmed it, not before.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tasks import history
from tasks.decision import Finished, Later
from worker.broker.records import ClaimAnswer
from worker.observe import jobs
from worker.runtime.admission import JobCancelledError, JobHeldError, LeaseLostError, RevokedError
from worker.runtime.in_flight import Held

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.decision import Decision
    from tasks.handler import LockConversation
    from tasks.run import Run
    from worker.broker.records import Delivery, Recovered
    from worker.runtime.admission import Admission
    from worker.runtime.background import Background
    from worker.runtime.clock import ServerClock
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.id_claims import IdClaims
    from worker.runtime.in_flight import Assignment, InFlight
    from worker.runtime.rule_guard import Guard
    from worker.runtime.settler import Settler


class Announcements(Protocol):
    """Shows Celery jobs before they run, and knows which of them it has revoked."""

    def is_watched(self, job: str) -> bool:
        """Return whether Celery must be shown a job before it runs."""

    def is_revoked(self, job: str) -> bool:
        """Return whether Celery knows that a job is revoked."""

    def announce(self, assignments: Sequence[Assignment]) -> None:
        """Show Celery jobs that are about to run. They come back through :meth:`Executor.resume`."""


class Executor:
    """Runs the jobs of one worker. All methods are for the asyncio loop.

    Args:
        admission: decides on a job before it runs.
        handler: the job's life.
        claims: claims the ids of jobs.
        in_flight: the jobs in flight.
        clock: the server's clock.
        settler: settles jobs.
        celery: is shown jobs before they run, while it watches.
        background: runs tasks that no caller waits for.
        controls: what operators asked for.
        guard: holds the jobs of rules that ask for too much.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        handler: LockConversation,
        claims: IdClaims,
        in_flight: InFlight,
        clock: ServerClock,
        settler: Settler,
        celery: Announcements,
        background: Background,
        controls: ControlWatch,
        guard: Guard,
    ) -> None:
        self._admission = admission
        self._handler = handler
        self._claims = claims
        self._in_flight = in_flight
        self._clock = clock
        self._settler = settler
        self._celery = celery
        self._background = background
        self._controls = controls
        self._guard = guard

    def receive(self, deliveries: Sequence[Delivery], *, may_call: bool = True) -> None:
        """Read the jobs of one take, and run them or settle them at once.

        ``may_call``: the jobs passed flow control. Those that did not are released where they would be called.
        """
        try:
            self._receive(deliveries, may_call=may_call)
        except Exception:
            self._let_go(deliveries)
            raise

    def _receive(self, deliveries: Sequence[Delivery], *, may_call: bool) -> None:
        now = self._clock.now()
        ready: list[Assignment] = []
        watched: list[Assignment] = []
        put_off: list[Assignment] = []
        for delivery in deliveries:
            assignment = self._in_flight.add(delivery)
            try:
                assignment.decision = self._admission.admit(assignment, now, may_call=may_call)
                is_to_run = assignment.decision is None
                assignment.is_at_celery = is_to_run and self._celery.is_watched(assignment.parsed.id)
            except Exception as error:  # noqa: BLE001 - one job's trouble must not keep the others of its take from running
                assignment.decision = self._admission.failed(assignment, error)
            if isinstance(assignment.decision, Later):
                assignment.deadline_ms = 0 if may_call else self._admission.deadline_ms(assignment)
            if isinstance(assignment.decision, (Held, Later)):
                put_off.append(assignment)
            else:
                (watched if assignment.is_at_celery else ready).append(assignment)
        if watched:
            self._celery.announce(watched)
        if put_off and self._controls.are_ids_cancelled:
            self._background.spawn(self._put_off_unless_cancelled(put_off))
        else:
            self._put_off(put_off)
        self._begin(ready)

    def end_expired(self, deliveries: Sequence[Delivery]) -> None:
        """End jobs that are too old; one that is not too old by this worker's settings is released."""
        self.receive(deliveries, may_call=False)

    def end_poisoned(self, delivery: Delivery) -> None:
        """End a job that too many workers died on. Its id is claimed as any other, so that duplicates are dropped."""
        assignment = self._in_flight.add(delivery)
        try:
            assignment.decision = self._admission.poisoned(assignment)
        except Exception:
            self._let_go([delivery])
            raise
        self._begin([assignment])

    def resume(self, assignments: Sequence[Assignment]) -> None:
        """Run jobs that Celery was shown."""
        # Those that were cancelled meanwhile are released already.
        ready = [assignment for assignment in assignments if assignment.is_at_celery]
        for assignment in ready:
            assignment.is_at_celery = False
            if assignment.is_revoked:
                assignment.decision = self._admission.revoked(assignment)
        self._begin(ready)

    def cancel(self, delivery: Delivery) -> None:
        """Stop running a job, and release it."""
        assignment = self._in_flight.get(delivery)
        if assignment is not None:
            self._cancel(assignment)

    def cancel_all(self) -> None:
        """Stop running all jobs, and release them."""
        for assignment in self._in_flight.assignments():
            self._cancel(assignment)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Release jobs that were taken for a queue which this worker has left meanwhile."""
        for delivery in deliveries:
            self._settler.release(self._in_flight.add(delivery))

    def report_recovered(self, queue: str, recovered: Recovered) -> None:
        """Log that jobs of lost workers are ready again."""
        jobs.recovered(queue, recovered, [self._admission.id_of(raw) for raw in recovered.messages])

    def _let_go(self, deliveries: Sequence[Delivery]) -> None:
        """Leave jobs to their leases that an error of ours kept from beginning. Renewed, these would last for ever."""
        for delivery in deliveries:
            self._in_flight.remove(delivery)

    def _begin(self, assignments: list[Assignment]) -> None:
        if assignments:
            self._background.spawn(self._claim_and_run(assignments[0].delivery.queue, assignments))

    def _put_off(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            if isinstance(assignment.decision, (Held, Later)):
                self._admission.keep_progress(assignment)
                self._settler.settle(assignment, assignment.decision)

    async def _put_off_unless_cancelled(self, assignments: Sequence[Assignment]) -> None:
        """Delay or hold jobs, but end those whose ids are cancelled: they were made ready to be ended."""
        notes = await self._controls.notes_of([assignment.parsed.id for assignment in assignments])
        cancelled = [assignment for assignment in assignments if assignment.parsed.id in notes]
        for assignment in cancelled:
            assignment.decision = self._admission.cancelled(assignment, notes[assignment.parsed.id])
        self._begin(cancelled)
        self._put_off(assignments)

    async def _claim_and_run(self, queue: str, assignments: list[Assignment]) -> None:
        """Claim the ids of jobs. Then run each, settle it as it was decided, or drop it as a duplicate."""
        try:
            await self._guard.apply(assignments)
            self._put_off(assignments)
            assignments = [assignment for assignment in assignments if not isinstance(assignment.decision, Held)]
            for assignment, answer in await self._claims.claim(queue, assignments):
                self._claimed(assignment, answer)
        except Exception:
            self._let_go([assignment.delivery for assignment in assignments if assignment.task is None])
            raise

    def _claimed(self, assignment: Assignment, answer: ClaimAnswer) -> None:
        if answer is ClaimAnswer.DUPLICATE:
            self._settler.drop_duplicate(assignment)
        elif answer is ClaimAnswer.CONFLICT:
            if not isinstance(assignment.decision, Finished):
                assignment.decision = self._admission.conflicting(assignment)
            self._settler.settle_under_its_own_id(assignment, assignment.decision.event, is_conflict=True)
        elif assignment.decision is not None:
            self._settler.settle(assignment, assignment.decision)
        elif assignment.cancel_note is not None:
            self._settler.settle(assignment, self._admission.cancelled(assignment, assignment.cancel_note))
        elif assignment.is_cancelled:
            self._settler.release(assignment)
        else:
            assignment.begun_at = time.monotonic()
            delivery = assignment.delivery
            is_first = not (delivery.attempts or delivery.is_retry)
            jobs.started(assignment.parsed, self._clock.now(), is_first=is_first)
            # The loop itself keeps no reference to a task; the assignment does.
            assignment.task = asyncio.create_task(self._run(assignment))

    async def _run(self, assignment: Assignment) -> None:
        """Run one job. Whatever happens, it ends in one decision, is released, or has been lost to another worker."""
        run = self._admission.run_of(assignment, self._celery.is_revoked)
        try:
            decision: Decision | Held = await self._handler(assignment.accepted, run)
        except asyncio.CancelledError:
            _note_interruption(assignment, run)
            raise
        except LeaseLostError:
            self._settler.lost(assignment)
            return
        except JobHeldError as held:
            assignment.delivery.progress = run.progress.to_bytes()
            decision = Held(held.hold)
        except JobCancelledError as cancelled:
            decision = self._admission.cancelled(assignment, cancelled.note, run)
        except RevokedError:
            decision = self._admission.revoked(assignment, run)
        except Exception as error:  # noqa: BLE001 - the last line of defence: a job never vanishes in an error of ours
            decision = self._admission.failed(assignment, error, run)
        else:
            if isinstance(decision, Later):
                assignment.delivery.progress = run.progress.to_bytes()
                assignment.deadline_ms = self._admission.deadline_ms(assignment)
        finally:
            run.is_over = True
        self._settler.settle(assignment, decision)

    def _cancel(self, assignment: Assignment) -> None:
        if assignment.is_at_celery:
            assignment.is_at_celery = False  # Celery's thread may stand still, so the job does not wait for it
            self._settler.release(assignment)
        elif assignment.task is not None and not assignment.is_cancelled and assignment.task.cancel():
            # From a callback, because a task that had not begun never comes to release its job.
            assignment.task.add_done_callback(partial(_release_if_cancelled, self._settler, assignment))
        assignment.is_cancelled = True


def _release_if_cancelled(settler: Settler, assignment: Assignment, task: asyncio.Task[None]) -> None:
    if task.cancelled():
        settler.release(assignment)


def _note_interruption(assignment: Assignment, run: Run) -> None:
    """Note what the next delivery must know of a run that was cancelled."""
    progress = run.progress
    if run.is_calling:  # nobody knows what came of that call
        run.attempts += 1
        progress.may_be_at_work = True
        progress.history = history.with_call(progress.history, run.clock(), reason=history.INTERRUPTED)
    if run.attempts or progress.history:
        assignment.delivery.progress = progress.to_bytes()
