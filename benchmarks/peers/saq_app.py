"""SAQ on uvloop; jobs are forgotten when they are done (``ttl=-1``)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvloop
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from benchmarks.peers.job import CONCURRENCY, REDIS_CONNECTIONS, REDIS_URL, async_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

queue = RedisQueue(
    Redis.from_url(REDIS_URL, max_connections=REDIS_CONNECTIONS), name="benchmark", max_concurrent_ops=CONCURRENCY
)


async def lock_conversation(_context: Any, *, job_id: str, conversation_id: str) -> None:
    """One job."""
    await async_job()(job_id, conversation_id)


settings = {"queue": queue, "functions": [lock_conversation], "concurrency": CONCURRENCY}


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``Queue.enqueue``."""
    await queue.connect()

    async def send(job_id: str, conversation_id: str) -> None:
        await queue.enqueue(
            "lock_conversation", key=job_id, ttl=-1, timeout=60, job_id=job_id, conversation_id=conversation_id
        )

    yield send
    await queue.disconnect()
