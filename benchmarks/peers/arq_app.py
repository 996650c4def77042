"""arq on uvloop; results are not kept. It polls: ``BENCH_POLL_SECONDS`` is the pause between two looks at the queue."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers.job import CONCURRENCY, REDIS_CONNECTIONS, REDIS_URL, async_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

_redis = RedisSettings.from_dsn(REDIS_URL)
_redis.max_connections = REDIS_CONNECTIONS


async def lock_conversation(_context: Any, job_id: str, conversation_id: str) -> None:
    """One job."""
    await async_job()(job_id, conversation_id)


class Worker:
    """What ``arq`` reads its settings from."""

    functions = (lock_conversation,)
    redis_settings = _redis
    max_jobs = CONCURRENCY
    poll_delay = float(os.environ.get("BENCH_POLL_SECONDS", "0.01"))
    keep_result = 0
    log_results = False


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``enqueue_job``."""
    pool = await create_pool(_redis)

    async def send(job_id: str, conversation_id: str) -> None:
        await pool.enqueue_job("lock_conversation", job_id, conversation_id, _job_id=job_id)

    yield send
    await pool.aclose()
