"""A plugin for a worker process (``--include``): notes Celery's task signals in Redis, and counts what Celery knows.

Nothing else must happen here: that the worker knows of a receiver is what some tests are about.
"""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import signals
from celery.worker import state
from celery.worker.control import inspect_command

#: A list of the names of the signals that fired.
SIGNALS = os.environ["SIGNALS_KEY"]

client: Any = redis.Redis.from_url(os.environ["REDIS_URL"])


def note(signal: Any, **_: Any) -> None:
    client.rpush(SIGNALS, signal.name)


for name in signals.__all__:
    if name.startswith("task_"):
        getattr(signals, name).connect(note, weak=False)


@inspect_command()
def monitoring(panel: Any, *_: Any) -> dict[str, Any]:
    """How much Celery remembers of jobs, and which queues are looked after."""
    return {
        "requests": len(state.requests),
        "reserved": len(state.reserved_requests),
        "active": len(state.active_requests),
        "successful": len(state.successful_requests),
        "listens": bool(signals.task_prerun.receivers),
        "in_care": panel.app.runtime.queues.looked_after(),
    }
