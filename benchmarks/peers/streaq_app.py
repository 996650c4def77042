"""streaq on uvloop; results are not kept, tasks are not logged."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from streaq import Worker

from benchmarks.peers.job import CONCURRENCY, REDIS_URL, async_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

worker = Worker(redis_url=REDIS_URL, concurrency=CONCURRENCY, anyio_kwargs={"use_uvloop": True})


@worker.task(ttl=0, silent=True)
async def lock_conversation(job_id: str, conversation_id: str) -> None:
    """One job."""
    await async_job()(job_id, conversation_id)


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``enqueue``."""
    async with worker:

        async def send(job_id: str, conversation_id: str) -> None:
            await lock_conversation.enqueue(job_id, conversation_id)

        yield send
