"""What a Redis server tells of its own work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.redis_server import RedisServer

if TYPE_CHECKING:
    import redis


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the server's start.

    Attributes:
        events: entries in the results stream.
        cpu_seconds: user and system time of the server process, all its threads.
        commands: commands executed, those inside scripts counted each.
        reads: times it read from a client's socket: about one for each round trip.
    """

    events: int
    cpu_seconds: float
    commands: int
    reads: int


def counters(client: redis.Redis, stream: str) -> Counters:
    """Read all in one round trip."""
    pipeline = client.pipeline(transaction=False)
    pipeline.xlen(stream)
    pipeline.info("cpu")
    pipeline.info("stats")
    answers: list[Any] = pipeline.execute()
    events, cpu, stats = answers
    return Counters(
        events=events,
        cpu_seconds=cpu["used_cpu_user"] + cpu["used_cpu_sys"],
        commands=stats["total_commands_processed"],
        reads=stats["total_reads_processed"],
    )


def version() -> str:
    """Which server is used."""
    binary = RedisServer().binary
    return f"{binary.name} {binary.version}"
