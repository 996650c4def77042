"""A plugin for a worker process (``--include``): notes Celery's signals in Redis, and counts what Celery knows."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis
from celery import signals
from celery.worker import state
from celery.worker.control import inspect_command

if TYPE_CHECKING:
    from collections.abc import Callable

#: A list of JSON objects: the signal, the job's id, and whether the job's event was out by then.
SIGNALS = os.environ["SIGNALS_KEY"]
RESULTS = "moderation.results"

client: Any = redis.Redis.from_url(os.environ["REDIS_URL"])


def note(signal: str, job: str, **facts: Any) -> None:
    is_published = False
    with suppress(redis.ResponseError):  # a test put something else in the stream's place
        is_published = any(
            json.loads(fields[b"event"])["id"] == job for _, fields in client.xrevrange(RESULTS, count=20)
        )
    client.rpush(SIGNALS, json.dumps({"signal": signal, "id": job, "is_published": is_published, **facts}))


def listen(signal: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def connect(receiver: Callable[..., None]) -> Callable[..., None]:
        signal.connect(receiver, weak=False)
        return receiver

    return connect


@listen(signals.task_received)
def received(request: Any, **_: Any) -> None:
    note("received", request.id)


@listen(signals.task_prerun)
def prerun(task_id: str, task: Any, kwargs: dict[str, Any], **_: Any) -> None:
    note("prerun", task_id, request=task.request.id, kwargs=kwargs)


@listen(signals.task_success)
def success(sender: Any, result: Any, **_: Any) -> None:
    note("success", sender.request.id, result=result)


@listen(signals.task_failure)
def failure(sender: Any, task_id: str, exception: Exception, **_: Any) -> None:
    note("failure", task_id, request=sender.request.id, exception=str(exception))


@listen(signals.task_retry)
def retry(request: Any, reason: Exception, **_: Any) -> None:
    note("retry", request.id, reason=str(reason))


@listen(signals.task_revoked)
def revoked(request: Any, *, terminated: bool, **_: Any) -> None:
    note("revoked", request.id, terminated=terminated)


@listen(signals.task_postrun)
def postrun(task_id: str, task: Any, state: str, **_: Any) -> None:
    note("postrun", task_id, request=task.request.id, state=state)


@inspect_command()
def monitoring(panel: Any, *_: Any) -> dict[str, Any]:
    """How much Celery remembers of jobs, and which queues are looked after."""
    return {
        "requests": len(state.requests),
        "reserved": len(state.reserved_requests),
        "active": len(state.active_requests),
        "successful": len(state.successful_requests),
        "in_care": panel.app.runtime.queues.looked_after(),
    }
