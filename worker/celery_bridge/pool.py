"""An asyncio pool for Celery: jobs are coroutines on one loop in one thread, ``--concurrency`` of them at once.

What Celery knows of a pool stays true: ``revoke``, ``inspect``, ``pool_grow`` and the ways to shut down. Each job has a
number of its own where other pools have a process id. Jobs do not come through Celery's hands
(``worker.runtime.fetcher``); what it is told of them is in ``worker.celery_bridge.monitoring``.
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
    """The pool; the app that it is made for has the runtime."""

    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime: Runtime = self.app.runtime
        self._monitoring: Monitoring = self.app.monitoring
        self._shutdown_seconds: float = self.app.shutdown_seconds

    def on_start(self) -> None:
        """Start the asyncio side, once all is loaded and before the first job is taken."""
        gc_tuning.freeze_loaded_objects()
        self._resize(self.limit)
        self._runtime.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Told Celery's event loop."""
        self._monitoring.call_soon = loop.call_soon

    def terminate_job(self, pid: int, signal: Any = None) -> None:  # noqa: ARG002 - Celery's signature
        """Stop a job and hand it back."""
        self._monitoring.terminate(pid)

    def grow(self, n: int = 1) -> None:
        """Run ``n`` more jobs at once; at least one in all, and at most MAX_SLOTS or what the open files allow."""
        wanted = min(self.limit + n, MAX_SLOTS)
        if n > 0:
            # Whoever lowered the limit of open files meanwhile takes no slot away by that.
            wanted = max(self.limit, most_jobs(wanted, len(self._runtime.queues_looked_after())))
        self._resize(wanted)
        self._runtime.slots_changed()

    def shrink(self, n: int = 1) -> None:
        """Run ``n`` fewer jobs at once; at least one in all, and MAX_SLOTS at most."""
        self.grow(-n)

    def _resize(self, slots: int) -> None:
        self.limit = self._runtime.in_flight.limit = max(1, min(slots, MAX_SLOTS))

    def on_close(self) -> None:
        """The time for what is in flight begins now, however long Celery takes to close its connections."""
        self._runtime.close(self._shutdown_seconds)

    def on_stop(self) -> None:
        """Finish or hand back what is in flight."""
        self._runtime.stop(self._shutdown_seconds)
        self._monitoring.flush()

    def on_terminate(self) -> None:
        """Hand back what is in flight."""
        self._runtime.stop(0)
        self._monitoring.flush()
