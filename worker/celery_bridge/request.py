"""A job in flight as Celery's remote control and monitors see it.

Celery learns of a job's end only after Redis has confirmed it, so no monitor shows a success that did not happen. All
of this runs on Celery's thread, and only for jobs that are watched (``worker.celery_bridge.monitoring``).

Celery's signals of tasks (``task_prerun``, ``task_success``, ...) do not fire. Their receivers, tracers above all, take
what happens on the thread between two of them for the work of one task, but here the jobs of one worker interleave and
run on another thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, assert_never

from celery.utils.serialization import safe_repr
from celery.worker import request as stock
from celery.worker import state

from worker.runtime.settlement import Completed, Delayed, Ignored, SetAside, Settlement

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.message import Accepted
    from worker.runtime.in_flight import Assignment

#: Fields of a job that no monitor is shown: what people wrote, and what a producer may have put anything into.
_PRIVATE_FIELDS = {"reason", "metadata"}


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
        self._job = job = assignment.accepted
        self.delivery = assignment.delivery
        self.number = number
        self.id = job.id
        self.name = self._type = task.name  # type: ignore[misc]  # the stubs have a property
        self._task = task
        self._consumer = consumer
        self._app = consumer.app
        self._hostname = consumer.hostname
        self._args: tuple[()] = ()
        self._kwargs = _fields_to_show(job)
        self._argsrepr = "()"
        self._eta = self._expires = self._root_id = self._parent_id = None
        self._message = None
        self._decoded = self._utc = self._ignore_result = True
        self._content_type = self._content_encoding = None
        self._delivery_info = {
            "exchange": "",
            "routing_key": assignment.delivery.queue,
            "priority": None,
            "redelivered": assignment.delivery.crashes > 0,
        }
        self._accepted_at = 0.0
        self._eventer = None  # Celery sets it after each reconnect; send_event uses the consumer's instead

    @property
    def _kwargsrepr(self) -> str:
        return repr(self._kwargs)

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
        self.send_event(
            "task-received",
            name=self.name, args=self._argsrepr, kwargs=self._kwargsrepr, retries=self.delivery.attempts,
            eta=_as_text(self._job.not_before), expires=_as_text(self._job.expires_at),
        )  # fmt: skip

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

    def settled(self, how: Settlement) -> None:
        """Announce how the job left this worker."""
        self.acknowledge()
        state.task_ready(self)
        match how:
            case Completed(outcome, None):
                self.send_event("task-succeeded", result=outcome, runtime=time.monotonic() - self._accepted_at)
            case Completed(outcome, problem):
                self.send_event(
                    "task-failed", exception=safe_repr(LockFailedError(f"{outcome}: {problem}")), traceback=""
                )
            case Delayed(_, reason):
                self.send_event("task-retried", exception=safe_repr(LockFailedError(reason)), traceback="")
            case SetAside() | Ignored():
                pass
            case _:
                assert_never(how)

    def _announce_revoked(self, reason: str, terminated: bool, signum: int | None, expired: bool) -> None:  # noqa: ARG002, FBT001 - Celery's signature
        """Announce that the job was revoked."""
        state.task_ready(self)
        self.send_event("task-revoked", terminated=terminated, signum=signum, expired=expired)
        self.acknowledge()
        self._already_revoked = True

    def _announce_cancelled(self, emit_retry: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - Celery's signature
        """Announce that a shutdown stopped the job, which is released."""
        state.task_ready(self)
        self.send_event("task-cancelled")
        self._already_cancelled = True


def _fields_to_show(job: Accepted) -> dict[str, Any]:
    """Return the fields that the producer gave, by their own names, as JSON can hold them."""
    return job.job.model_dump(mode="json", exclude=_PRIVATE_FIELDS, exclude_defaults=True)


def _as_text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
