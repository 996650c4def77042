"""An asyncio pool for Celery: jobs are coroutines on one loop in one thread, ``--concurrency`` of them at once.

What Celery knows of a pool stays true: ``revoke``, ``inspect``, ``pool_grow`` and the ways to shut down. Each job has a
number of its own where other pools have a process id. What Celery is told of a job is in ``worker.request``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from celery.concurrency.base import BasePool

if TYPE_CHECKING:
    from worker.request import Request
    from worker.settled import Settled

logger = logging.getLogger(__name__)


class TaskPool(BasePool):
    """The pool; the app that it is made for has the executor."""

    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._executor = self.app.executor
        self._shutdown_seconds: float = self.app.shutdown_seconds
        self._numbers = count(1)
        self._requests: dict[int, Request] = {}
        self._settled: deque[tuple[int, Settled]] = deque()
        self._hub: Any = None

    def on_start(self) -> None:
        """Start the asyncio side."""
        self._executor.hands.limit = self.limit
        self._executor.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Told Celery's event loop."""
        self._hub = loop
        self._executor.on_room = lambda: loop.call_soon(self._tell)

    def run(self, request: Request) -> None:
        """Run a job, and tell its request of each step."""
        number = next(self._numbers)
        self._requests[number] = request
        request.started(number)
        self._executor.submit(request.delivery, partial(self._note, number))

    def terminate_job(self, pid: int, signal: Any = None) -> None:  # noqa: ARG002 - Celery's signature
        """Stop a job and hand it back; whoever takes it next finds it revoked."""
        request = self._requests.pop(pid, None)
        if request is not None:
            self._executor.cancel(request.delivery)

    def grow(self, n: int = 1) -> None:
        """Run ``n`` more jobs at once."""
        self.limit += n
        self._executor.hands.limit = self.limit

    def shrink(self, n: int = 1) -> None:
        """Run ``n`` fewer jobs at once; at least one."""
        self.limit = max(1, self.limit - n)
        self._executor.hands.limit = self.limit

    def on_close(self) -> None:
        """The time for what is in flight begins now, however long Celery takes to close its connections."""
        self._executor.close(self._shutdown_seconds)

    def on_stop(self) -> None:
        """Finish or hand back what is in flight."""
        self._executor.stop(self._shutdown_seconds)
        self._tell()

    def on_terminate(self) -> None:
        """Hand back what is in flight."""
        self._executor.stop(0)
        self._tell()

    def _note(self, number: int, how: Settled) -> None:
        """Told by the asyncio side that a job is settled."""
        self._settled.append((number, how))
        if len(self._settled) == 1 and self._hub is not None:
            # When the others of its batch are noted too: one wake-up for all of them.
            asyncio.get_running_loop().call_soon(self._hub.call_soon, self._tell)

    def _tell(self) -> None:
        """Tell Celery, on its own thread, what became of its jobs."""
        while self._settled:
            number, how = self._settled.popleft()
            request = self._requests.pop(number, None)
            if request is None:  # terminated: Celery was told then
                continue
            try:
                request.settled(how)
            except Exception:  # somebody's signal handler; the job itself is settled
                logger.exception("callback_error", extra={"job": request.id})
