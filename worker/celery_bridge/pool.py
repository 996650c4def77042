"""Celery's interface to the asyncio runtime, as a pool: up to ``--concurrency`` coroutines on one loop in one thread.

``revoke``, ``inspect``, ``pool_grow`` and the ways to shut down work as with other pools. Each job has a number of its
own where other pools have a process id. Jobs never pass through Celery (``worker.runtime.fetcher`` takes them); which
of them Celery is shown, ``worker.celery_bridge.monitoring`` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.concurrency.base import BasePool

from worker.runtime import gc_tuning
from worker.runtime.in_flight import MAX_SLOTS
from worker.runtime.open_files import most_jobs

if TYPE_CHECKING:
    from worker.celery_bridge.monitoring import Monitoring
    from worker.runtime.runtime import Runtime


class TaskPool(BasePool):
    """The pool. Its app has the runtime."""

    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime: Runtime = self.app.runtime
        self._monitoring: Monitoring = self.app.monitoring
        self._shutdown_seconds: float = self.app.shutdown_seconds

    def on_start(self) -> None:
        """Start the asyncio runtime, after all modules are loaded and before the first job is taken."""
        gc_tuning.freeze_loaded_objects()
        self._resize(self.limit)
        self._runtime.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Take note of Celery's event loop."""
        self._monitoring.call_soon = loop.call_soon

    def terminate_job(self, pid: int, signal: Any = None) -> None:  # noqa: ARG002 - Celery's signature
        """Interrupt a job and release it."""
        self._monitoring.terminate(pid)

    def grow(self, n: int = 1) -> None:
        """Add ``n`` slots; at least one remains, and there are at most MAX_SLOTS or what the open files allow."""
        slots = min(self.limit + n, MAX_SLOTS)
        if n > 0:
            # A limit of open files that was lowered meanwhile takes no slot away.
            slots = max(self.limit, most_jobs(slots, len(self._runtime.queues.looked_after())))
        self._resize(slots)
        self._runtime.slots_changed()

    def shrink(self, n: int = 1) -> None:
        """Remove ``n`` slots; at least one remains, and there are at most MAX_SLOTS."""
        self.grow(-n)

    def _resize(self, slots: int) -> None:
        self.limit = self._runtime.in_flight.limit = max(1, min(slots, MAX_SLOTS))

    def on_close(self) -> None:
        """Begin the shutdown: the time for the jobs in flight runs while Celery closes its connections."""
        self._runtime.close(self._shutdown_seconds)

    def on_stop(self) -> None:
        """Finish or release the jobs in flight."""
        self._runtime.stop(self._shutdown_seconds)
        self._monitoring.flush()

    def on_terminate(self) -> None:
        """Release the jobs in flight."""
        self._runtime.stop(0)
        self._monitoring.flush()
