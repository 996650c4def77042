"""A job as Celery's remote control, monitors and signals see it while it is with us.

Celery learns of a job's end when Redis has said that it is over: so no monitor shows a success that never was. All of
this runs on Celery's thread, and only for jobs that somebody looks at (``worker.celery_bridge.monitoring``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, assert_never

from celery import signals
from celery.app.task import Context
from celery.exceptions import Ignore, Retry
from celery.utils.serialization import safe_repr
from celery.worker import request as stock
from celery.worker import state

from worker.runtime.settlement import Completed, Delayed, Ignored, Settlement

if TYPE_CHECKING:
    from celery.utils.dispatch import Signal

    from worker.runtime.in_flight import Assignment


class LockFailedError(Exception):
    """The conversation was not locked; what Celery's monitors show as the failure of a task."""


def task_events_are_on(dispatcher: Any) -> bool:
    """Tell whether Celery's event dispatcher sends events of tasks; the heartbeat uses the same one for its own."""
    return bool(dispatcher and dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups))


class Request(stock.Request):
    """A request whose acknowledgement is its result event, so that there is nothing to acknowledge here.

    It is made from what was read of the message already. Celery's own constructor is left out: it would look at the
    message's headers again, for options that have no effect here.

    Args:
        assignment: the job.
        number: stands where other pools have a process id.
        task: what it is a run of.
        consumer: Celery's consumer, whose monitors are told.
    """

    def __init__(self, assignment: Assignment, number: int, task: Any, consumer: Any) -> None:
        job = assignment.parsed
        self.delivery = assignment.delivery
        self.number = number
        self.id = job.id
        self.name = self._type = task.name  # type: ignore[misc]  # the stubs have a property
        self._task = task
        self._consumer = consumer
        self._app = consumer.app
        self._hostname = consumer.hostname
        self._args: tuple[()] = ()
        # What Celery may know, and show to whoever asks it: the conversation, and nothing of what was said about it.
        self._kwargs = {"subject": job.subject}
        self._argsrepr = "()"
        self._eta = self._expires = self._root_id = self._parent_id = None
        self._message = None
        self._decoded = self._utc = self._ignore_result = True
        self._content_type = self._content_encoding = None
        self._delivery_info = {
            "exchange": "",
            "routing_key": assignment.delivery.queue,
            "priority": None,
            "redelivered": False,
        }
        self._accepted_at = 0.0
        self._eventer = None  # Celery sets it after each reconnect; monitors are told through the consumer's own

    @property
    def _kwargsrepr(self) -> str:
        return repr(self._kwargs)

    @property
    def _request_dict(self) -> dict[str, Any]:
        """The headers and properties that there would be, for ``task.request``."""
        return {
            "id": self.id, "task": self.name, "args": self._args, "kwargs": self._kwargs,
            "argsrepr": self._argsrepr, "kwargsrepr": self._kwargsrepr, "hostname": self._hostname,
            "delivery_info": self._delivery_info, "properties": {},
        }  # fmt: skip

    @property
    def _context(self) -> Context:
        return Context(self._request_dict, called_directly=False)

    def acknowledge(self) -> None:
        """Note that Celery has no more to do with it."""
        self.acknowledged = True

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Tell the monitors, if they are told of tasks."""
        monitors = self._consumer.event_dispatcher  # another one after each lost connection
        if task_events_are_on(monitors):
            monitors.send(type, uuid=self.id, **fields)

    def received(self) -> None:
        """Tell that the job is here."""
        signals.task_received.send(sender=self._consumer, request=self)
        self.send_event("task-received", name=self.name, args=self._argsrepr, kwargs=self._kwargsrepr, retries=0)

    def begun(self, at: float) -> None:
        """Note that the job runs, since then (monotonic seconds)."""
        self.worker_pid = self.number  # type: ignore[assignment]  # the stubs have a string
        self._accepted_at = at
        self.time_start = time.time() - (time.monotonic() - at)
        state.task_accepted(self)

    def started(self) -> None:
        """Tell that the job is about to run."""
        self.begun(time.monotonic())
        self.send_event("task-started")
        self._signal(signals.task_prerun, task_id=self.id, task=self._task, args=(), kwargs=self._kwargs)

    def settled(self, how: Settlement) -> None:
        """Tell how the job left this worker."""
        self.acknowledge()
        state.task_ready(self)
        told: str | Exception
        match how:
            case Completed(outcome, None):
                end, told = "SUCCESS", outcome
                self._signal(signals.task_success, result=outcome)
                self.send_event("task-succeeded", result=outcome, runtime=time.monotonic() - self._accepted_at)
            case Completed(outcome, problem):
                end, told = "FAILURE", LockFailedError(f"{outcome}: {problem}")
                self._signal(
                    signals.task_failure,
                    task_id=self.id, exception=told, args=(), kwargs=self._kwargs, traceback=None, einfo=None,
                )  # fmt: skip
                self.send_event("task-failed", exception=safe_repr(told), traceback="")
            case Delayed(delay, reason):
                end, told = "RETRY", Retry(f"again in {delay:.1f} s: {reason}", LockFailedError(reason))
                self._signal(signals.task_retry, request=self._context, reason=told, einfo=None)
                self.send_event("task-retried", exception=safe_repr(told.exc), traceback="")
            case Ignored():
                end, told = "IGNORED", Ignore("settled elsewhere")
            case _:
                assert_never(how)
        self._signal(
            signals.task_postrun,
            task_id=self.id, task=self._task, args=(), kwargs=self._kwargs, retval=told, state=end,
        )  # fmt: skip

    def _signal(self, signal: Signal, **told: Any) -> None:
        """Send a signal, with the job in ``task.request``: of a success its handlers are told nothing else."""
        if not signal.receivers:
            return
        self._task.request_stack.push(self._context)
        try:
            signal.send(sender=self._task, **told)
        finally:
            self._task.request_stack.pop()
