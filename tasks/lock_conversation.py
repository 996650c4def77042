"""The Celery task ``moderation.lock_conversation``.

In a service with a Celery app whose broker is the worker's Redis::

    from tasks.lock_conversation import lock_conversation

    lock_conversation.delay("c-42", rule_id="r-7")

puts a job onto LOCK_QUEUE. lock-worker's own asyncio runtime takes it from there and runs it as ``tasks.handler``
describes; Celery's part ends there. Where Celery runs a task in the process that calls it (``apply``,
``task_always_eager``, a plain call), the same code runs the job in that process (``tasks.in_process``), and the task
returns the job's result event.

Importing this module reads no setting, opens no connection and starts nothing. No other module of this package imports
Celery.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from celery import shared_task, states, uuid
from celery.app.routes import Router
from celery.app.task import Task
from celery.exceptions import Reject
from celery.result import EagerResult
from kombu import Exchange, Queue
from kombu.utils.json import dumps

import settings
from tasks.job import Job
from tasks.parse import no_such_fields
from tasks.redaction import describe, shorten
from tasks.task_name import TASK_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from celery.result import AsyncResult
    from kombu import Producer

#: What the worker can decompress, by kombu's names.
_COMPRESSIONS = {"gzip", "zlib", "application/x-gzip"}
#: Celery logs the beginning of a task's result. So many characters of an event name the job, and contain nothing of its
#: conversation.
_LOGGED_RESULT_CHARACTERS = 160
#: Names that an error text quotes unchanged. Any other name comes from the producer and may hold anything.
_KNOWN = {*Job.model_fields, "args", "kwargs"}
#: How long a stock worker keeps a job before it gives it back, in seconds. Without the wait it would take the same job
#: again and again at full speed.
_GIVE_BACK_AFTER_SECONDS = 1.0
_STOCK_WORKER = (
    "Job %s was given back to its queue: only lock-worker publishes result events. Stop consuming this queue here, and "
    "start `celery -A worker worker` of lock-worker for it."
)

logger = logging.getLogger(__name__)


class LockTask(Task[..., dict[str, Any]]):
    """Sends jobs as lock-worker reads them, and runs a job in-process where Celery asks for that."""

    #: Celery's own check of the arguments would raise for an eager job too, which has to end as ``rejected``.
    typing = False

    def apply_async(  # noqa: PLR0917 - Celery's signature
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Producer | None = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[dict[str, Any]]:
        """Send a job to LOCK_QUEUE, or run it here where ``task_always_eager`` is set.

        Takes the options that every Celery task takes. Whatever the app's settings are, the message holds keyword
        arguments as JSON, compressed with gzip or not at all, and goes to LOCK_QUEUE unless ``queue`` names another
        one; ``task_routes`` do not apply. Results come as events only: ``get()`` on the return value waits for ever.

        Raises:
            TypeError: there is no conversation id, an unknown name or a second positional argument. What a field may
                hold is checked by the worker, which publishes a ``rejected`` event.
            SettingsError: LOCK_QUEUE is no name that a queue can have.
            kombu.exceptions.EncodeError: a value cannot be written as JSON.
            kombu.exceptions.OperationalError: Redis cannot be reached.
        """
        if self.app.conf.task_always_eager:
            eager: Any = self.apply(args, kwargs, link, link_error, task_id, **options)
            return eager  # type: ignore[no-any-return]  # as Celery does
        fields = _sendable(args or (), kwargs or {})
        options["serializer"] = "json"
        compression = options.get("compression") or self.app.conf.task_compression
        if compression and compression not in _COMPRESSIONS:
            options["compression"] = "gzip"
        if not options.get("queue"):
            name = settings.lock_queue()
            # Made here, so that it need not be one of the app's own task_queues.
            options["queue"] = Queue(name, Exchange(name), routing_key=name)
        options["router"] = Router((), self.app.amqp.queues, app=self.app)  # one without the app's routes
        return super().apply_async((), fields, task_id, producer, link, link_error, shadow, **options)

    def apply(  # noqa: PLR0917 - as above
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,  # noqa: FBT001 - Celery's signature
        logfile: str | None = None,
        loglevel: str | None = None,
        headers: Mapping[str, Any] | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        expires: float | datetime | str | None = None,
        **options: Any,
    ) -> EagerResult[dict[str, Any]]:
        """Run a job in this process, and wait for its end. The result of the return value is the job's event.

        Arguments that make no job give a ``rejected`` event. ``expires`` is obeyed. ``eta`` and ``countdown`` are
        checked but not waited for, as in every task that Celery runs eagerly. ``link`` and ``link_error`` have no
        effect, as in the worker.
        """
        task_id = task_id or uuid()
        headers = {
            **(headers if isinstance(headers, Mapping) else {}),
            "eta": self._header("eta", eta=eta, countdown=countdown),
            "expires": self._header("expires", expires=expires),
        }
        for option, value in (("link", link), ("link_error", link_error)):
            if value:
                logger.warning("option_ignored", extra={"option": option, "job": task_id})
        args, kwargs = args or (), kwargs or {}
        if not _can_be_called_with(args, kwargs):
            event = _run_here(args, kwargs, task_id, headers)
            return EagerResult(task_id, event, states.SUCCESS, name=self.name)
        return super().apply(
            tuple(args), dict(kwargs), None, None, task_id, retries, throw, logfile, loglevel, headers, **options
        )

    def __call__(self, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a job in this process, and return its event.

        Takes any arguments: those that do not fit the signature of the task give a ``rejected`` event, as they would
        in the worker. Python would not let them through to ``run``.
        """
        request = self.request
        if not (request.called_directly or request.is_eager):
            _give_back(request.id)
        return _run_here(args, kwargs, request.id or uuid(), request.headers or {})

    def _header(self, name: str, **options: Any) -> Any:
        """Return what Celery would write into this header of a message; a value that it cannot write, unchanged."""
        try:
            return self.app.amqp.as_task_v2("", self.name, **options).headers[name]
        except (TypeError, ValueError, AttributeError, OverflowError):
            return next(value for value in options.values() if value is not None)


@shared_task(
    name=TASK_NAME,
    base=LockTask,
    bind=True,
    serializer="json",
    acks_late=True,
    ignore_result=True,
    resultrepr_maxsize=_LOGGED_RESULT_CHARACTERS,
)
def lock_conversation(
    self: LockTask,
    conversation_id: str | int | UUID,
    *,
    reason: str | None = None,
    rule_id: str | None = None,
    policies: Sequence[str] | None = None,
    actor: str | None = None,
    correlation_id: str | None = None,
    requested_at: datetime | str | None = None,
    dry_run: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Lock a conversation through the Managem API.

    Args:
        self: the task.
        conversation_id: the conversation to lock, 1 to 256 characters.
        reason: why, for people; at most 1,000 characters.
        rule_id: the moderation rule that fired; at most 128 characters.
        policies: the policies behind the rule; at most 20 of at most 128 characters each.
        actor: the service or (opaque) moderator that asked; at most 128 characters.
        correlation_id: the producer's own key; at most 128 characters.
        requested_at: when the rule fired, with an offset from UTC.
        dry_run: do everything but the call.
        metadata: anything that JSON can hold, given back in the event; at most 8 KiB and 32 levels.

    Returns:
        The result event, where the job ran in this process.
    """
    return self(
        conversation_id,
        reason=reason,
        rule_id=rule_id,
        policies=policies,
        actor=actor,
        correlation_id=correlation_id,
        requested_at=requested_at,
        dry_run=dry_run,
        metadata=metadata,
    )


def _by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return the arguments without absent fields, and the positional one by its name if that is clear."""
    named = _present(kwargs)
    match args:
        case [Mapping() as fields] if not named:
            return (), _present(fields)
        case [conversation_id] if "conversation_id" not in named and not isinstance(conversation_id, Mapping):
            return (), _present({"conversation_id": conversation_id, **named})
    return args, named


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields without known ones that are None. Unknown ones stay, because they are refused later."""
    return {name: value for name, value in fields.items() if value is not None or name not in Job.model_fields}


def _sendable(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's fields as keyword arguments, without those that are None.

    Raises:
        TypeError: the arguments make no job; the message names the field.
    """
    if not isinstance(args, list | tuple):
        raise TypeError(f"args: must be a list or a tuple, and is {describe(args)}")
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs: must be a mapping, and is {describe(kwargs)}")
    args, fields = _by_name(args, kwargs)
    if args:
        raise TypeError(
            f"{TASK_NAME} takes one positional argument, which is conversation_id, and was given {len(args)} beside "
            f"{len(fields)} by name; give each field once, and all others by their names"
        )
    unknown = [str(name) for name in fields if name not in Job.model_fields]
    if unknown:
        raise TypeError(" ".join(no_such_fields(unknown)))
    if "conversation_id" not in fields:
        raise TypeError("conversation_id: is missing; give it first, or by its name")
    return fields


def _can_be_called_with(args: Any, kwargs: Any) -> bool:
    """Return True if Python can call a function with these arguments."""
    return (
        isinstance(args, list | tuple) and isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)
    )


def _run_here(args: Any, kwargs: Any, task_id: Any, headers: Mapping[str, Any]) -> dict[str, Any]:
    from tasks import in_process  # noqa: PLC0415 - a service that only sends jobs needs no HTTP client

    if isinstance(args, list | tuple) and isinstance(kwargs, Mapping):
        args, kwargs = _by_name(args, kwargs)
    problem = None
    body = _json([args, kwargs])
    if body is None:
        args, kwargs, problem = _without_unwritable(args, kwargs)
        body = _json([args, kwargs]) or b"[[], {}]"
    return in_process.run(in_process.Call(id=task_id, body=body, headers=headers, problem=problem))


def _json(value: Any) -> bytes | None:
    """Return a value as Celery sends it; None if it cannot be written as JSON."""
    try:
        return bytes(dumps(value).encode())
    except Exception:  # noqa: BLE001 - an object's own ``__json__`` may raise anything
        return None


def _without_unwritable(args: Any, kwargs: Any) -> tuple[Any, Any, str]:
    """Return the arguments that JSON can hold, and a sentence about the others."""
    named = dict(kwargs) if isinstance(kwargs, Mapping) else {"kwargs": kwargs}
    if _json(args) is None:
        named["args"], args = args, ()
    bad = [name for name, value in named.items() if _json({name: value}) is None]
    problem = " ".join(
        f"{name if name in _KNOWN else shorten(name)}: cannot be written as JSON; send strings, numbers, "
        "booleans, and lists and objects of them."
        for name in bad
    )
    return args, {name: value for name, value in named.items() if name not in bad}, problem


def _give_back(task_id: str | None) -> NoReturn:
    """Return a job to its queue: a worker of another app took it, and that worker cannot publish the job's event."""
    logger.error(_STOCK_WORKER, task_id)
    time.sleep(_GIVE_BACK_AFTER_SECONDS)
    raise Reject("not a lock-worker", requeue=True)
