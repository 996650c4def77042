"""RQ: processes that run one job at a time each, without a fork for each job; results are not kept.

Run with ``python -m benchmarks.peers.rq_app PROCESSES``.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker import SimpleWorker
from rq.worker_pool import WorkerPool

from benchmarks.peers.job import REDIS_URL, sync_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


def lock_conversation(job_id: str, conversation_id: str) -> None:
    """One job."""
    sync_job()(job_id, conversation_id)


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``Queue.enqueue``."""
    queue = Queue("benchmark", connection=redis.Redis.from_url(REDIS_URL), serializer=JSONSerializer)

    async def send(job_id: str, conversation_id: str) -> None:
        queue.enqueue("benchmarks.peers.rq_app.lock_conversation", job_id, conversation_id, job_id=job_id, result_ttl=0)

    yield send


if __name__ == "__main__":
    WorkerPool(
        ["benchmark"],
        connection=redis.Redis.from_url(REDIS_URL),
        num_workers=int(sys.argv[1]),
        worker_class=SimpleWorker,
        serializer=JSONSerializer,
    ).start(logging_level="WARNING")
