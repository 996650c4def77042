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
    **settings: object,
) -> None:
    """Register a worker of this name, with what it does and the settings that must agree."""
    registry = Registry(worker, "1.0", settings, activity=lambda: activity)
    client.hset(KEYS.workers, worker, f"{int(time.time() * 1000)} {registry.digest} {registry.entry(queues)}")
    client.zadd(KEYS.queues, dict.fromkeys(queues, 1))
