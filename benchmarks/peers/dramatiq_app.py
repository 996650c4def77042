"""Dramatiq with threads; no results, no metrics server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.job import REDIS_URL_WITH_ROOM, sync_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

broker = RedisBroker(url=REDIS_URL_WITH_ROOM)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="benchmark", max_retries=3)
def lock_conversation(job_id: str, conversation_id: str) -> None:
    """One job."""
    sync_job()(job_id, conversation_id)


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``send``."""

    async def send(job_id: str, conversation_id: str) -> None:
        lock_conversation.send(job_id, conversation_id)

    yield send
