"""This worker: only its producer, a stock Celery client as any service may have one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from celery import Celery

from benchmarks.peers.job import REDIS_URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

TASK = "moderation.lock_conversation"
QUEUE = "moderation.lock"


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with Celery, over one connection."""
    app = Celery("producer", broker=REDIS_URL, set_as_current=False)
    with app.producer_pool.acquire(block=True) as kept:

        async def send(job_id: str, conversation_id: str) -> None:
            app.send_task(
                TASK,
                kwargs={"conversation_id": conversation_id},
                task_id=job_id,
                queue=QUEUE,
                ignore_result=True,
                producer=kept,
            )

        yield send
