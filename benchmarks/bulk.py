"""A backlog, quickly: messages as a stock Celery client writes them, a thousand a command.

One message is sent by Celery itself; the others are that one with other ids.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, cast

from celery import Celery

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

TASK = "moderation.lock_conversation"
QUEUE = "moderation.lock"
_AT_ONCE = 1000


def fill(client: redis.Redis, url: str, jobs: int, first: int = 0) -> int:
    """Put so many jobs into the queue; the size of one message in bytes."""
    template = _template(client, url)
    size = len(_message(template, first))
    for start in range(first, first + jobs, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, first + jobs))
        client.lpush(QUEUE, *_messages(template, numbers))
    return size


def _messages(template: dict[str, Any], numbers: range) -> Iterator[bytes]:
    for number in numbers:
        yield _message(template, number)


def _message(template: dict[str, Any], number: int) -> bytes:
    job_id = f"job-{number:032d}"  # as long as the UUIDs that clients use
    template["headers"]["id"] = template["headers"]["root_id"] = template["properties"]["correlation_id"] = job_id
    arguments = [[], {"conversation_id": f"conversation-{number}"}, {}]
    template["body"] = base64.b64encode(json.dumps(arguments).encode()).decode()
    return json.dumps(template).encode()


def _template(client: redis.Redis, url: str) -> dict[str, Any]:
    app = Celery("producer", broker=url, set_as_current=False)
    app.send_task(TASK, kwargs={"conversation_id": "conversation-0"}, queue=QUEUE, ignore_result=True)
    app.close()
    return cast("dict[str, Any]", json.loads(cast("bytes", client.lpop(QUEUE))))
