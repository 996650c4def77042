"""An asyncio pool for Celery: jobs are coroutines on one loop in one thread, ``--concurrency`` of them at once.

What Celery knows of a pool stays true: signals, task events, ``revoke``, ``inspect``, ``pool_grow`` and the ways to
shut down. Each job has a number of its own where other pools have a process id. Callbacks run on Celery's thread, and
only when Redis has said that the job is over, so that no monitor shows a success that never was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, assert_never

from celery import signals
from celery.app.task import Context
from celery.concurrency.base import BasePool
from celery.exceptions import Ignore, Retry

from worker.settled import Delayed, Ended, Gone, Settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.utils.dispatch import Signal

    from worker.broker.moves import Delivery

logger = logging.getLogger(__name__)


class LockFailedError(Exception):
    """The conversation was not locked; what Celery's monitors show as the failure of a task."""


@dataclass(slots=True)
class _Job:
    id: str
    delivery: Delivery
    task: Any
    request: dict[str, Any]
    started: float
    on_success: Callable[[tuple[bool, Any, float]], None]
    on_failure: Callable[[Any], None]
    _context: Context | None = None

    @property
    def context(self) -> Context:
        """The job as ``task.request`` shows it; made for those who look."""
        if self._context is None:
            self._context = Context(self.request, called_directly=False)
        return self._context

    def send(self, signal: Signal, **told: Any) -> None:
        """Send a signal, with the job in ``task.request``: of a success its handlers are told nothing else."""
        if not signal.receivers:
            return
        self.task.request_stack.push(self.context)
        try:
            signal.send(sender=self.task, **told)
        finally:
            self.task.request_stack.pop()


@dataclass(slots=True)
class _Failure:
    """What Celery reads of an exception's report. There is no traceback to show: nothing was raised."""

    exception: Exception
    traceback: str = ""

    @property
    def exc_info(self) -> tuple[type[Exception], Exception, None]:
        """As ``sys.exc_info()``."""
        return type(self.exception), self.exception, None


class TaskPool(BasePool):
    """The pool; the app that it is made for has the executor."""

    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._executor = self.app.executor
        self._shutdown_seconds: float = self.app.shutdown_seconds
        self._numbers = count(1)
        self._jobs: dict[int, _Job] = {}
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

    def on_apply(self, *arguments: Any, **options: Any) -> object:  # type: ignore[override]
        """Run a job, and give what Celery keeps a weak reference to.

        The first argument, Celery's own runner of a task's function, is not used.
        """
        task_name, task_id, request = arguments[1][:3]
        number = next(self._numbers)
        task = self.app.tasks[task_name]
        job = self._jobs[number] = _Job(
            task_id,
            request["delivery"],
            task,
            request,
            time.monotonic(),
            options["callback"],
            options["error_callback"],
        )
        options["accept_callback"](number, time.monotonic())
        if number in self._jobs:  # not terminated in the moment it was accepted
            job.send(signals.task_prerun, task_id=task_id, task=task, args=(), kwargs=request["kwargs"])
            self._executor.submit(request["delivery"], lambda how: self._note(number, how))
        return _Applied()

    def terminate_job(self, pid: int, signal: Any = None) -> None:  # noqa: ARG002 - Celery's signature
        """Stop a job and hand it back; whoever takes it next finds it revoked."""
        job = self._jobs.pop(pid, None)
        if job is not None:
            self._executor.cancel(job.delivery)

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
            job = self._jobs.pop(number, None)
            if job is None:  # terminated: Celery was told then
                continue
            try:
                self._tell_of(job, how)
            except Exception:  # somebody's signal handler; the job itself is settled
                logger.exception("callback_error", extra={"job": job.id})

    def _tell_of(self, job: _Job, how: Settled) -> None:
        seconds = time.monotonic() - job.started
        told: str | Exception
        match how:
            case Ended(outcome, None):
                state, told = "SUCCESS", outcome
                job.send(signals.task_success, result=outcome)
                job.on_success((False, outcome, seconds))
            case Ended(outcome, problem):
                state, told = "FAILURE", LockFailedError(f"{outcome}: {problem}")
                job.send(
                    signals.task_failure, task_id=job.id, exception=told, args=(), kwargs={}, traceback=None, einfo=None
                )
                job.on_success((True, _Failure(told), seconds))
            case Delayed(delay, reason):
                state, told = "RETRY", Retry(f"again in {delay:.1f} s: {reason}", LockFailedError(reason))
                if signals.task_retry.receivers:
                    job.send(signals.task_retry, request=job.context, reason=told, einfo=None)
                job.on_failure(_Failure(told))
            case Gone():
                state, told = "IGNORED", Ignore("settled elsewhere")
                job.on_failure(_Failure(told))
            case _:
                assert_never(how)
        job.send(signals.task_postrun, task_id=job.id, task=job.task, args=(), kwargs={}, retval=told, state=state)


class _Applied:
    """What Celery keeps a weak reference to; the job itself is known by its number."""

    __slots__ = ("__weakref__",)
