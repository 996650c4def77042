"""Stock Celery: late acknowledgement, no results, no events."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from celery import Celery

from benchmarks.peers.job import REDIS_URL, sync_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

TASK = "benchmark.lock_conversation"

app = Celery("stock", broker=REDIS_URL, set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue="benchmark",
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "1")),
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_disable_rate_limits=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name=TASK, bind=True)
def lock_conversation(self: Any, conversation_id: str) -> None:
    """One job."""
    sync_job()(self.request.id, conversation_id)


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with Celery, over one connection."""
    with app.producer_pool.acquire(block=True) as kept:

        async def send(job_id: str, conversation_id: str) -> None:
            lock_conversation.apply_async((conversation_id,), task_id=job_id, producer=kept)

        yield send
