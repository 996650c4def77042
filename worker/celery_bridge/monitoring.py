"""What Celery's remote control and monitors know of the jobs in this worker.

Celery is told of jobs lazily. To report each job would cost a tenth of its CPU time, because each would pass from the
asyncio loop to Celery's thread and back. While task events are on, each job is announced before it runs and reported
when it is settled. Otherwise Celery is shown the jobs in flight only just before a command of the remote control or a
heartbeat is answered.

Celery's own state belongs to Celery's thread, so only that thread calls what changes it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any

from celery.worker import state

from worker.broker.refusals import as_lost_connection
from worker.celery_bridge.request import Request, task_events_are_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.exceptions import ResponseError

    from worker.runtime.in_flight import Announced, Assignment, InFlight
    from worker.runtime.runtime import Runtime
    from worker.runtime.settlement import Settlement

logger = logging.getLogger(__name__)


class Monitoring:
    """What Celery knows of the jobs of one worker.

    Args:
        task: Celery's task that a job is a run of.
        in_flight: the jobs in flight.
        runtime: returns the asyncio side, which is made after this.

    ``consumer`` is Celery's, which sets itself.
    ``call_soon`` calls something on Celery's thread. The pool sets it when there is a loop; before, no job is taken.
    """

    consumer: Any

    def __init__(self, task: Any, in_flight: InFlight, *, runtime: Callable[[], Runtime]) -> None:
        self._task = task
        self._in_flight = in_flight
        self._runtime = runtime
        self._numbers = count(1)
        self._announced: dict[int, Request] = {}
        self._finished: deque[tuple[Announced, Settlement]] = deque()
        self._uncounted = self._counted = 0
        self.call_soon: Callable[..., object] = lambda *_: None

    # -- called by the asyncio side --

    def is_watched(self, job: str) -> bool:
        """Return whether Celery must be shown a job before it runs."""
        return job in state.revoked or task_events_are_on(self.consumer.event_dispatcher)

    def is_revoked(self, job: str) -> bool:
        """Return whether Celery heard that a job is revoked."""
        return job in state.revoked

    def announce(self, assignments: Sequence[Assignment]) -> None:
        """Show jobs that are about to begin; they come back to the runtime."""
        self.call_soon(self._announce, assignments)

    def settled(self, assignment: Assignment, how: Settlement) -> None:
        """Note how a job left this worker."""
        if assignment.announced is not None:
            self._finished.append((assignment.announced, how))
        elif assignment.task is not None:
            self._uncounted += 1

    def flush_soon(self) -> None:
        """Let Celery hear of what was noted."""
        self.call_soon(self.flush)

    def reconnect(self, error: ResponseError) -> None:
        """Let Celery connect anew, if it was connected before now.

        What a timer raises on its loop as a lost connection is treated as one. What the loop is to call soon must not
        raise: the rest that is to be called then would be lost.
        """
        heard_at = time.monotonic()
        if self.consumer.connected_at > heard_at:  # it connects just now, and looks for itself where to
            return

        def lose() -> None:
            if self.consumer.connected_at < heard_at:
                raise as_lost_connection(error)

        def lose_soon() -> None:
            self.consumer.hub.call_later(0, lose)

        self.call_soon(lose_soon)

    # -- called on Celery's thread --

    def flush(self) -> None:
        """Tell Celery what became of the jobs that it was shown."""
        while self._finished:
            request, how = self._finished.popleft()
            if self._announced.pop(request.number, None) is None:  # terminated: Celery knows already
                continue
            request.settled(how)

    def sync(self) -> None:
        """Show Celery all jobs in flight, and count those that came and went without it."""
        self.flush()
        for assignment in self._in_flight.running():
            if assignment.announced is None:
                assignment.announced = request = self._entry(assignment)
                request.begun(assignment.begun_at)
                # The asyncio side lets go of a job before it looks for its request, so one of the two sees the other.
                if not self._in_flight.holds(assignment) and self._announced.pop(request.number, None) is not None:
                    state.task_ready(request)
        unseen = self._uncounted
        state.total_count[self._task.name] += unseen - self._counted
        state.all_total_count[0] += unseen - self._counted
        self._counted = unseen

    def terminate(self, number: int) -> None:
        """Stop a job and release it; the next worker that takes it finds it revoked."""
        request = self._announced.pop(number, None)
        if request is not None:
            self._runtime().cancel_job(request.delivery)

    def _announce(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            request = self._entry(assignment)
            request.received()
            if request.id in state.revoked and request.revoked():
                assignment.is_revoked = True
                self._announced.pop(request.number)
            else:
                assignment.announced = request
                request.started()
        self._runtime().resume(assignments)

    def _entry(self, assignment: Assignment) -> Request:
        number = next(self._numbers)
        request = self._announced[number] = Request(assignment, number, self._task, self.consumer)
        return request
