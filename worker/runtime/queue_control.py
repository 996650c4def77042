"""What Celery's thread asks of the queues: take jobs from one, take no more from one, and which ones there are."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from worker.runtime.worker_loop import CANCEL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from worker.runtime.in_flight import InFlight
    from worker.runtime.loop_thread import LoopThread
    from worker.runtime.worker_loop import WorkerLoop


class QueueControl:
    """The queues of one worker, for any thread.

    Args:
        loop_thread: the thread of the asyncio loop.
        loop: what runs on it.
        in_flight: the jobs in flight.
        job_queues: returns the queues that Celery was told to consume.
    """

    def __init__(
        self,
        loop_thread: LoopThread,
        loop: WorkerLoop,
        in_flight: InFlight,
        job_queues: Callable[[], Iterable[str]],
    ) -> None:
        self._loop_thread = loop_thread
        self._loop = loop
        self._in_flight = in_flight
        self._job_queues = job_queues

    def is_job_queue(self, queue: str) -> bool:
        """Return whether a queue holds jobs, and is not one of Celery's remote control."""
        return queue in self._job_queues()

    def consume(self, queue: str) -> None:
        """Take jobs from a queue, keep their leases, promote those that are due and recover those that were lost."""
        self._loop_thread.call(self._loop.consume, queue)

    def cancel(self, queue: str) -> None:
        """Take no more jobs from a queue; return when that is so. Its jobs in flight are looked after."""
        # A signal handler may interrupt the wait and stop the runtime. An Event would deadlock then: who waits for it
        # holds a lock that its setter needs. A SimpleQueue may be interrupted.
        done: SimpleQueue[None] = SimpleQueue()
        self._loop_thread.call(self._loop.cancel, queue, done)
        if not self._in_flight.is_closed and self._loop_thread.is_alive:
            with suppress(Empty):
                done.get(timeout=CANCEL_SECONDS)

    def looked_after(self) -> list[str]:
        """Return the queues that jobs are taken from, or will be at once, and those of which jobs are in flight."""
        return list({*self._job_queues(), *self._loop.queues.names()})
