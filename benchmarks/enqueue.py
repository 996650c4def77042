"""Enqueues jobs with a queue's own API; runs in that queue's environment.

    python -m benchmarks.enqueue MODULE --first 0 --jobs 1000                  # as fast as it can
    python -m benchmarks.enqueue MODULE --first 0 --gaps 0.01,0.01,0.4 ...     # one job before each pause

Prints one JSON array on standard output: the moment (seconds since the epoch) at which each job's enqueuing began, and
nothing for jobs sent as fast as possible. The ids are ``job-<number>`` and ``conversation-<number>``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_AT_ONCE = 50


async def _quickly(send: Callable[[str, str], Awaitable[None]], first: int, jobs: int) -> None:
    for start in range(first, first + jobs, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, first + jobs))
        await asyncio.gather(*(send(f"job-{number}", f"conversation-{number}") for number in numbers))


async def _steadily(send: Callable[[str, str], Awaitable[None]], first: int, gaps: list[float]) -> list[float]:
    """Keep to the timetable even when a send was slow, as producers that do not know of each other do."""
    moments: list[float] = []
    due = time.perf_counter()
    for number, gap in enumerate(gaps, first):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        moments.append(time.time())
        await send(f"job-{number}", f"conversation-{number}")
        due += gap
    return moments


async def _run(options: argparse.Namespace) -> list[float]:
    module = importlib.import_module(options.module)
    async with module.producer() as send:
        if options.gaps is None:
            await _quickly(send, options.first, options.jobs)
            return []
        sys.stdin.readline()  # a line tells that the worker is up and the clock may start
        return await _steadily(send, options.first, options.gaps)


def main() -> None:
    """Enqueue."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--gaps", type=lambda text: [float(gap) for gap in text.split(",")])
    sys.stdout.write(json.dumps(asyncio.run(_run(parser.parse_args()))) + "\n")


if __name__ == "__main__":
    main()
