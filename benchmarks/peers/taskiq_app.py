"""taskiq on its Redis stream broker, which acknowledges after a job. It uses uvloop where that is installed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from taskiq_redis import RedisStreamBroker

from benchmarks.peers.job import REDIS_CONNECTIONS, REDIS_URL, async_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

# "0": the group reads what was enqueued before the worker came up.
broker = RedisStreamBroker(REDIS_URL, max_connection_pool_size=REDIS_CONNECTIONS, consumer_id="0", xread_count=200)


@broker.task(task_name="lock_conversation")
async def lock_conversation(job_id: str, conversation_id: str) -> None:
    """One job."""
    await async_job()(job_id, conversation_id)


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``kiq``."""
    await broker.startup()

    async def send(job_id: str, conversation_id: str) -> None:
        await lock_conversation.kicker().with_task_id(job_id).kiq(job_id, conversation_id)

    yield send
    await broker.shutdown()
