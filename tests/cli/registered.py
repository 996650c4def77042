"""Registers workers in Redis as a worker does, without one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.broker.keys import Keys
from worker.runtime.members import Activity
from worker.runtime.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

KEYS = Keys("moderation.lock")
_WORKING = Activity(slots=10)


def register(
    client: redis.Redis,
    worker: str,
    queues: Sequence[str] = ("moderation.lock",),
    activity: Activity = _WORKING,
    *,
    name: str | None = None,
    seconds_ago: float = -20,
    **settings: object,
) -> None:
    """Register a worker of this name in Redis, with its name in Celery, what it does, and what must agree.

    By default it has registered in the future, so that it does not become silent while a test runs.
    """
    registry = Registry(worker, "1.0", settings, activity=lambda: activity)
    registry.name = name or worker
    at_ms = int((time.time() - seconds_ago) * 1000)
    client.hset(KEYS.workers, worker, f"{at_ms} {registry.digest} {registry.entry(queues)}")
    client.zadd(KEYS.queues, dict.fromkeys(queues, 1))
