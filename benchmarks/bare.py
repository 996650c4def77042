"""What the job costs without a queue: a bare loop.

As many coroutines as the workers have slots take the next number, call, check, and publish one by one. Nothing is
fetched, acknowledged, retried, logged or remembered. With ``BENCH_UVLOOP=1`` on uvloop.
"""

from __future__ import annotations

import asyncio
import os
from itertools import count

from benchmarks.peers.job import CONCURRENCY, AsyncJob


async def _run() -> None:
    job = AsyncJob()
    numbers = count()

    async def slot() -> None:
        for number in numbers:
            await job(f"job-{number}", f"conversation-{number}")

    await asyncio.gather(*(slot() for _ in range(CONCURRENCY)))


if __name__ == "__main__":
    if os.environ.get("BENCH_UVLOOP") == "1":
        import uvloop

        uvloop.run(_run())
    else:
        asyncio.run(_run())
