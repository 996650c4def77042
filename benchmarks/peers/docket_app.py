"""docket (pydocket) on uvloop, started as its documentation starts a worker in code; results and states are not kept.

Run with ``python -m benchmarks.peers.docket_app``.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import uvloop
from docket import Docket, Worker

from benchmarks.peers.job import CONCURRENCY, REDIS_URL_WITH_ROOM, async_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


async def lock_conversation(job_id: str, conversation_id: str) -> None:
    """One job."""
    await async_job()(job_id, conversation_id)


def _docket() -> Docket:
    return Docket(name="benchmark", url=REDIS_URL_WITH_ROOM, execution_ttl=timedelta(0))


async def _work() -> None:
    async with _docket() as docket:
        docket.register(lock_conversation)
        async with Worker(docket, concurrency=CONCURRENCY) as worker:
            await worker.run_forever()


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Enqueue with ``Docket.add``."""
    async with _docket() as docket:

        async def send(job_id: str, conversation_id: str) -> None:
            await docket.add(lock_conversation, key=job_id)(job_id, conversation_id)

        yield send


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(_work())
