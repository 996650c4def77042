"""This worker, with a producer that is no Celery client: it pushes messages onto the list, as the README shows."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from benchmarks.peers.job import REDIS_URL
from benchmarks.peers.lock_worker import QUEUE, TASK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``LPUSH``, over one connection."""
    async with Redis.from_url(REDIS_URL, single_connection_client=True) as client:

        async def send(job_id: str, conversation_id: str) -> None:
            message = {
                "headers": {"task": TASK, "id": job_id},
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "properties": {"body_encoding": "utf-8"},
                "body": json.dumps([[], {"conversation_id": conversation_id}, {}]),
            }
            await client.lpush(QUEUE, json.dumps(message))

        yield send
