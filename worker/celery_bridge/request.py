"""A job in flight as Celery's remote control, monitors and signals see it.

Celery learns of a job's end only after Redis has confirmed it, so no monitor shows a success that did not happen. All
of this runs on Celery's thread, and only for jobs that are watched (``worker.celery_bridge.monitoring``).
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
    """The conversation was not locked. Celery's monitors show it as the failure of a task."""


def task_events_are_on(dispatcher: Any) -> bool:
    """Tell whether Celery's event dispatcher sends events of tasks; the heartbeat uses the same one for its own."""
    return bool(dispatcher and dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups))


class Request(stock.Request):
    """A request that needs no acknowledgement, because the result event is that.

    It is made from the decoded message. It does not call Celery's constructor, which would read the message's headers
    again, for options that have no effect here.

    Args:
        assignment: the job.
        number: takes the place of the process id of other pools.
        task: the task that the job runs.
        consumer: Celery's consumer, which has the event dispatcher.
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
        # Celery shows this to every monitor, so it has only the conversation's id.
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
        self._eventer = None  # Celery sets it after each reconnect; send_event uses the consumer's instead

    @property
    def _kwargsrepr(self) -> str:
        return repr(self._kwargs)

    @property
    def _request_dict(self) -> dict[str, Any]:
        """The headers and properties of ``task.request``."""
        return {
            "id": self.id, "task": self.name, "args": self._args, "kwargs": self._kwargs,
            "argsrepr": self._argsrepr, "kwargsrepr": self._kwargsrepr, "hostname": self._hostname,
            "delivery_info": self._delivery_info, "properties": {},
        }  # fmt: skip

    @property
    def _context(self) -> Context:
        return Context(self._request_dict, called_directly=False)

    def acknowledge(self) -> None:
        """Mark the request as acknowledged for Celery."""
        self.acknowledged = True

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Send an event to the monitors if task events are on."""
        monitors = self._consumer.event_dispatcher  # a new one after each lost connection
        if task_events_are_on(monitors):
            monitors.send(type, uuid=self.id, **fields)

    def received(self) -> None:
        """Announce that the worker has the job."""
        signals.task_received.send(sender=self._consumer, request=self)
        self.send_event("task-received", name=self.name, args=self._argsrepr, kwargs=self._kwargsrepr, retries=0)

    def begun(self, at: float) -> None:
        """Mark the job as running since ``at`` (monotonic seconds)."""
        self.worker_pid = self.number  # type: ignore[assignment]  # the stubs have a string
        self._accepted_at = at
        self.time_start = time.time() - (time.monotonic() - at)
        state.task_accepted(self)

    def started(self) -> None:
        """Announce that the job is about to run."""
        self.begun(time.monotonic())
        self.send_event("task-started")
        self._signal(signals.task_prerun, task_id=self.id, task=self._task, args=(), kwargs=self._kwargs)

    def settled(self, how: Settlement) -> None:
        """Announce how the job left this worker."""
        self.acknowledge()
        state.task_ready(self)
        result: str | Exception
        match how:
            case Completed(outcome, None):
                end, result = "SUCCESS", outcome
                self._signal(signals.task_success, result=outcome)
                self.send_event("task-succeeded", result=outcome, runtime=time.monotonic() - self._accepted_at)
            case Completed(outcome, problem):
                end, result = "FAILURE", LockFailedError(f"{outcome}: {problem}")
                self._signal(
                    signals.task_failure,
                    task_id=self.id, exception=result, args=(), kwargs=self._kwargs, traceback=None, einfo=None,
                )  # fmt: skip
                self.send_event("task-failed", exception=safe_repr(result), traceback="")
            case Delayed(delay, reason):
                end, result = "RETRY", Retry(f"again in {delay:.1f} s: {reason}", LockFailedError(reason))
                self._signal(signals.task_retry, request=self._context, reason=result, einfo=None)
                self.send_event("task-retried", exception=safe_repr(result.exc), traceback="")
            case Ignored():
                end, result = "IGNORED", Ignore("settled elsewhere")
            case _:
                assert_never(how)
        self._signal(
            signals.task_postrun,
            task_id=self.id, task=self._task, args=(), kwargs=self._kwargs, retval=result, state=end,
        )  # fmt: skip

    def _signal(self, signal: Signal, **arguments: Any) -> None:
        """Send a signal with the job in ``task.request``; handlers of a success learn of the job only from there."""
        if not signal.receivers:
            return
        self._task.request_stack.push(self._context)
        try:
            signal.send(sender=self._task, **arguments)
        finally:
            self._task.request_stack.pop()
