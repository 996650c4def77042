"""Queue messages for the tests of this folder: from stock Celery, and by hand."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from celery import Celery
from kombu.utils.json import dumps

from tasks.message import Accepted, Message, Rejection, UndecodableMessage
from tasks.parse import parse
from tasks.task_name import TASK_NAME
from worker.message import celery_protocol

NOW = datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
QUEUE = "moderation.lock"
JOB_ID = "6b1f1f4e-5f0e-4b6c-9d6a-0d9a8c1b2e3f"


class Marker(Enum):
    """What stands for something in a test's values, with a name that is the same in every run."""

    ABSENT = "absent"


ABSENT = Marker.ABSENT
"""As a value: the key is left out."""


def stock(*args: Any, protocol: int = 2, body_encoding: str | None = "base64", **options: Any) -> bytes:
    """The bytes that a stock Celery producer leaves in Redis for ``send_task`` with these options."""
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.task_protocol = protocol
    options.setdefault("kwargs", {} if args else {"conversation_id": "c-1"})
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.body_encoding = body_encoding
        queue = channel.queue_declare(queue=QUEUE).queue
        channel.queue_purge(queue)
        producer = app.amqp.Producer(channel, auto_declare=False)
        app.send_task(TASK_NAME, args=args, producer=producer, queue=QUEUE, retry=False, **options)
        message = channel._get(queue)
    # As kombu's Redis channel writes it.
    written: str = dumps(message)
    return written.encode()


def made(body: Any = None, *, headers: Any = None, properties: Any = None, **outer: Any) -> bytes:
    """A message by hand: protocol 2 with a conversation id, but for what is given.

    ``body`` and ``outer`` replace; ``headers`` and ``properties`` are laid over the usual ones where they are objects.
    """
    message = {
        "body": body
        if isinstance(body, str)
        else encoded([[], {"conversation_id": "c-1"}, {}] if body is None else body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": _laid_over({"task": TASK_NAME, "id": JOB_ID}, headers),
        "properties": _laid_over({"body_encoding": "base64", "delivery_tag": "t", "delivery_info": {}}, properties),
        **{name.replace("_", "-"): value for name, value in outer.items()},
    }
    return json.dumps(_present(message)).encode()


def with_fields(**fields: Any) -> bytes:
    """A message by hand whose keyword arguments are these and a conversation id."""
    return made([[], _present({"conversation_id": "c-1", **fields}), {}])


def encoded(body: Any) -> str:
    """A message's body as kombu writes it."""
    return as_base64(json.dumps(body).encode())


def as_base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def read(raw: bytes, *, true_size: int | None = None) -> Message | UndecodableMessage:
    return celery_protocol.parse(raw, now=NOW, task_name=TASK_NAME, true_size=true_size)


def accepted(raw: bytes) -> Accepted:
    """The job that a message is."""
    intake = parse(read(raw))
    assert isinstance(intake, Accepted), intake
    return intake


def refused(raw: bytes, *, true_size: int | None = None) -> Rejection:
    """The refusal that a message gets."""
    intake = parse(read(raw, true_size=true_size))
    assert isinstance(intake, Rejection), intake
    return intake


def _laid_over(usual: dict[str, Any], given: Any) -> Any:
    if given is None:
        return usual
    return _present({**usual, **given}) if isinstance(given, dict) else given


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not ABSENT}
