"""A fleet that operators steer: what is in the control stream, and workers that obey, or do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.cli.registered import register
from worker.runtime.members import Activity

if TYPE_CHECKING:
    import redis

CONTROL = "moderation.control"
TYPE_PREFIX = "uk.co.managem.lock-worker.control."
#: Registered as the version that a worker obeys, it is later than every other.
EVERY_VERSION = 10**14


def register_obedient(client: redis.Redis, worker: str) -> None:
    """Register a worker that obeys whatever is asked."""
    register(client, worker, activity=Activity(slots=10, controls=EVERY_VERSION))


def control_events(client: redis.Redis) -> list[dict[str, Any]]:
    """The events of the control stream."""
    entries: Any = client.xrange(CONTROL)
    return [json.loads(fields[b"event"]) for _, fields in entries]


def actions(client: redis.Redis) -> list[str]:
    """What was done, by the types of the events."""
    return [event["type"].removeprefix(TYPE_PREFIX) for event in control_events(client)]
