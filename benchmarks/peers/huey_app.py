"""huey with threads or greenlets; no results. It takes a job off the list for good: a worker that dies loses it."""

from __future__ import annotations

import os

if os.environ.get("BENCH_GREENLETS") == "1":
    from gevent import monkey

    monkey.patch_all()  # before anything opens a socket

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from huey import RedisHuey

from benchmarks.peers.job import REDIS_URL_WITH_ROOM, sync_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

huey = RedisHuey("benchmark", results=False, url=REDIS_URL_WITH_ROOM)


@huey.task()
def lock_conversation(job_id: str, conversation_id: str) -> None:
    """One job."""
    sync_job()(job_id, conversation_id)


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue by calling the task."""

    async def send(job_id: str, conversation_id: str) -> None:
        lock_conversation(job_id, conversation_id)

    yield send
