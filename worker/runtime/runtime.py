"""The asyncio side of a worker, as Celery's thread sees it.

One loop in one thread takes jobs, runs them, settles them and keeps their leases (``worker.runtime.worker_loop``).
Celery's thread calls the methods of :class:`Runtime`; what they start runs on the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.runtime.loop_thread import LoopThread
from worker.runtime.queue_control import QueueControl
from worker.runtime.worker_loop import WorkerLoop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.broker.records import Delivery
    from worker.runtime.fetcher import Fetcher
    from worker.runtime.in_flight import Assignment
    from worker.runtime.runtime_parts import RuntimeParts, Service

#: How long the loop may take at most to close what is open, once no job is in flight.
_CLOSE_SECONDS = 5.0


class Runtime:
    """The asyncio side of one worker. Its methods may be called from any thread.

    ``queues`` starts and stops work on queues.
    """

    def __init__(self, parts: RuntimeParts) -> None:
        self.name = parts.name
        self.in_flight = parts.in_flight
        self.registry = parts.registry
        self._parts = parts
        self._loop_thread = LoopThread()
        self._loop = WorkerLoop(parts, self._loop_thread.stop)
        self.queues = QueueControl(self._loop_thread, self._loop, parts.in_flight, parts.job_queues)

    @property
    def fetcher(self) -> Fetcher:
        """What takes the jobs."""
        return self._loop.fetcher

    def add_service(self, service: Service) -> None:
        """Let something run on the loop beside the jobs. Only before the start."""
        self._loop.services.append(service)

    def start(self) -> None:
        """Start the loop in its thread; return when it runs."""
        self._loop_thread.start(self._loop.begin)

    def flush_monitoring(self) -> None:
        """Wake Celery's thread. For signal handlers: on that thread they only interrupt its sleep."""
        self._loop_thread.call(self._parts.celery.flush_soon)

    def slots_changed(self) -> None:
        """Fetch again: the limit of jobs in flight was changed."""
        self._loop_thread.call(self._loop.fetcher.slots_freed)

    def resume(self, assignments: Sequence[Assignment]) -> None:
        """Run jobs that Celery was shown."""
        self._loop_thread.call(self._loop.executor.resume, assignments)

    def cancel_job(self, delivery: Delivery) -> None:
        """Stop running a job, and release it."""
        self._loop_thread.call(self._loop.executor.cancel, delivery)

    def remember_revoked(self, job_ids: Sequence[str]) -> None:
        """Note in Redis that job ids are revoked, so that workers know it which start later."""
        self._loop_thread.call(self._loop.remember_revoked, job_ids)

    def flow_changed(self) -> None:
        """Write what this worker has to change in the fleet's flow control."""
        self._loop_thread.call(self._loop.fleet.flow_changed)

    def restore_attempts(self, jobs: Mapping[tuple[str, str], int]) -> None:
        """Give attempts back that an outage cost jobs which wait in Redis, by queue and ref."""
        self._loop_thread.call(self._loop.restore_attempts, jobs)

    def close(self, seconds: float) -> None:
        """Take no more; let the jobs in flight finish, and release what is left before ``seconds`` are over."""
        self.in_flight.is_closed = True
        self._loop_thread.call(self._loop.shutdown.begin, seconds)

    def seconds_left(self) -> float:
        """Return the seconds that a shutdown may still take."""
        return self._loop.shutdown.seconds_left()

    def stop(self, seconds: float) -> None:
        """Close as :meth:`close` does, wait until that has happened, and end the loop.

        A second call may come from a signal handler while the first one waits, or when all is over. A handler may also
        have interrupted a thread that holds a lock which the loop needs, such as that of a log handler. So the wait is
        bounded: the interrupted thread goes on, frees the lock, and waits here again before the worker ends.
        """
        if self._loop_thread.is_alive:
            self.close(seconds)
            self._loop_thread.call(self._loop.shutdown.celery_is_done)
            self._loop_thread.join(seconds + _CLOSE_SECONDS)
