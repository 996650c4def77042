"""What one command costs the worker's process: redis-py's own asyncio client beside ``worker.broker.client``.

    python -m benchmarks.redis_clients            # about half a minute

Both clients send the same ``GET`` over redis-py's connections with hiredis, with one timeout and no retries, to a
server on the loopback, without TLS. In each round both run in turn, so a busy machine is busy for both; the median of
the rounds counts. CPU is user and system time of the client process alone. Compare the two rows, not two machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from sandbox.redis_server import RedisServer
from worker.broker.backoff import ConnectBackoff
from worker.broker.client import RedisClient
from worker.broker.connection import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RESULTS = Path(__file__).parent / "results" / "redis_clients.json"
#: Commands under way at once: a worker with little to do, and one whose moves, waits and renewals overlap.
AT_ONCE = (1, 8)
_WARM_UP = 200


async def _cpu_us(send: Callable[[], Awaitable[Any]], *, commands: int, at_once: int) -> float:
    """Microseconds of CPU that one command costs this process."""

    async def one_after_another(number: int) -> None:
        for _ in range(number):
            await send()

    await one_after_another(_WARM_UP)
    before = time.process_time()
    await asyncio.gather(*(one_after_another(commands // at_once) for _ in range(at_once)))
    return (time.process_time() - before) / commands * 1_000_000


async def measure(url: str, *, commands: int, rounds: int) -> list[dict[str, Any]]:
    """The median of all rounds, for each client and each number of commands at once."""
    where = parse_url(url)
    arguments: dict[str, Any] = {**where, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    stock: Any = redis.asyncio.Redis(**arguments, socket_timeout=TIMEOUT_SECONDS)
    ours = RedisClient(
        lambda: Connection(**arguments, socket_timeout=None), timeout_seconds=TIMEOUT_SECONDS, backoff=ConnectBackoff()
    )
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "redis.asyncio.Redis": lambda: stock.execute_command("GET", "key"),
        "worker.broker.client": lambda: ours.execute_command("GET", "key"),
    }
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for at_once in AT_ONCE:
            for name, send in ways.items():
                cost = await _cpu_us(send, commands=commands, at_once=at_once)
                found.setdefault((name, at_once), []).append(cost)
    await stock.aclose()
    await ours.disconnect()
    return [
        {"client": name, "at_once": at_once, "cpu_us": round(statistics.median(costs), 1)}
        for (name, at_once), costs in found.items()
    ]


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with RedisServer() as server:
        costs = asyncio.run(measure(server.url, commands=asked.commands, rounds=asked.rounds))
        conditions = {
            "server": f"{server.binary.name} {server.binary.version}",
            "python": platform.python_version(),
            "redis-py": version("redis"),
            "hiredis": version("hiredis"),
            "cores": os.cpu_count(),
            "commands": asked.commands,
            "rounds": asked.rounds,
        }
    text = json.dumps({"conditions": conditions, "costs": costs}, indent=2) + "\n"
    RESULTS.write_text(text, "utf-8")
    print(text)  # noqa: T201 - this is a program


if __name__ == "__main__":
    main()
