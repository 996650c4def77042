"""What a backlog costs: memory a job, and how long each script holds the server, with a million jobs and more about.

    python -m benchmarks.backlog --jobs 1000000

Fills a server of its own with so many waiting and as many delayed jobs, then makes each move many times at full batches
and reads from the server's slow log how long each call held it. The moves are those that a worker makes, through the
same functions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from redis.asyncio import Connection
from redis.asyncio.connection import parse_url

from benchmarks import bulk
from sandbox.redis_server import RedisServer
from worker.broker.backoff import ConnectBackoff
from worker.broker.broker_options import BrokerOptions
from worker.broker.client import RedisClient
from worker.broker.job_moves import JobMoves
from worker.broker.keys import Keys, digest
from worker.broker.maintenance_moves import MaintenanceMoves
from worker.broker.records import Completion, Delay, TakeRequest
from worker.broker.take import read_take, take_command

if TYPE_CHECKING:
    from worker.broker.records import Delivery

RESULTS = Path(__file__).parent / "results" / "backlog.json"
KEYS = Keys(bulk.QUEUE)
RULES = BrokerOptions(
    fleet=KEYS, rate=None, results="moderation.results", results_maxlen=100_000, dead="moderation.dead",
    dead_maxlen=100_000, lease_ms=3_600_000, dedup_ttl_ms=900_000, max_deliveries=1_000_000,
)  # fmt: skip
#: As large as the event of a usual conversation.
EVENT = b"e" * 1_500
AT_ONCE = 256
ROUNDS = 400
_SLOW_US = 100
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one script held the server at a full batch, in microseconds of its own clock."""

    move: str
    calls: int
    jobs_a_call: float
    p50_us: int
    p99_us: int
    max_us: int


class Backlog:
    """A server with a backlog."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.client: Any = redis.Redis.from_url(url)
        where = parse_url(url)
        link = RedisClient(lambda: Connection(**where), timeout_seconds=_TIMEOUT_SECONDS, backoff=ConnectBackoff())
        self.moves = JobMoves(link, KEYS, RULES)
        self.maintenance = MaintenanceMoves(link, KEYS, RULES)
        self._takes = 0

    def memory(self) -> int:
        """Bytes that the server uses."""
        found: int = self.client.info("memory")["used_memory"]
        return found

    def push(self, first: int, jobs: int) -> int:
        """Waiting jobs, as producers send them; the size of a message in bytes."""
        return bulk.fill(self.client, self._url, jobs, first)

    def take(self) -> list[Delivery]:
        """A full take."""
        self._takes += 1
        token = f"bench.{self._takes}"
        command = take_command(
            KEYS, RULES, token=token, worker="bench", request=TakeRequest(AT_ONCE, 0), whole_text=True
        )
        answer = self.client.execute_command(*command)
        return read_take(answer, KEYS, RULES, token=token, sent_at=time.monotonic(), wanted=AT_ONCE).jobs

    async def put_aside(self, jobs: int, seconds: float) -> None:
        """So many jobs from the list to the delayed ones."""
        left = jobs
        while left > 0:
            taken = self.take()
            await self.moves.delay([Delay(job, seconds) for job in taken])
            left -= len(taken)

    def forget_timings(self) -> None:
        """Begin to time anew: each call goes to the slow log, but not the commands inside it, which take far less."""
        self.client.config_set("slowlog-log-slower-than", _SLOW_US)
        self.client.config_set("slowlog-max-len", 20 * ROUNDS)
        self.client.slowlog_reset()

    def timing(self, move: str, jobs: int) -> Timing:
        """What the slow log tells of the scripts since then."""
        found = [entry["duration"] for entry in self.client.slowlog_get(20 * ROUNDS)
                 if entry["command"].split(b" ", 1)[0].upper() in {b"EVAL", b"EVALSHA"}]  # fmt: skip
        self.client.config_set("slowlog-log-slower-than", -1)
        found.sort()
        count = len(found)
        return Timing(move, count, round(jobs / count, 1), found[count // 2], found[count * 99 // 100], found[-1])


async def measure(backlog: Backlog, jobs: int) -> dict[str, Any]:
    """Fill the server, and time each move."""
    empty = backlog.memory()
    message_bytes = backlog.push(0, jobs)
    waiting = (backlog.memory() - empty) / jobs
    await backlog.put_aside(jobs, seconds=86_400)
    delayed = (backlog.memory() - empty) / jobs
    backlog.push(jobs, jobs)
    timings: list[Timing] = []

    backlog.forget_timings()
    held = [job for _ in range(ROUNDS) for job in backlog.take()]
    timings.append(backlog.timing("take", len(held)))

    backlog.forget_timings()
    for start in range(0, len(held) // 2, 100):
        some = held[start : start + 100]
        await backlog.moves.complete([
            Completion(job.ref, job.lease_token, EVENT, "locked", False, digest(job.ref), digest("c")) for job in some  # noqa: FBT003
        ])  # fmt: skip
    timings.append(backlog.timing("complete", len(held) // 2))
    held = held[len(held) // 2 :]

    backlog.forget_timings()
    for start in range(0, len(held), 500):
        await backlog.maintenance.renew(held[start : start + 500])
    timings.append(backlog.timing("renew", len(held)))

    # All that is in flight lapses at once, and a part of what waits is due at once.
    _age(backlog.client, KEYS.leases, len(held))
    now = int(backlog.client.time()[0]) * 1000
    backlog.client.hset(KEYS.maintenance, mapping={"recovered_at": now, "awake_since": now - 3_600_000})
    backlog.forget_timings()
    recovered = 0
    while found := (await backlog.maintenance.recover(token="bench.r", sent_at=0, between_ms=0)).count:  # noqa: S106
        recovered += found
    timings.append(backlog.timing("recover", recovered))

    due = min(jobs, 100_000)
    _age(backlog.client, KEYS.delayed, due)
    backlog.forget_timings()
    promoted = 0
    while found := (await backlog.maintenance.promote(between_ms=0)).count:
        promoted += found
    timings.append(backlog.timing("promote", promoted))
    return {
        "jobs": jobs,
        "message_bytes": message_bytes,
        "bytes_per_waiting_job": round(waiting),
        "bytes_per_delayed_job": round(delayed),
        "timings_us": [{name: getattr(each, name) for name in Timing.__slots__} for each in timings],
    }


def _age(client: Any, index: str, count: int) -> None:
    """Let the moment of the first jobs of an index be long ago."""
    names = client.zrange(index, 0, count - 1)
    for start in range(0, len(names), 1_000):
        client.zadd(index, dict.fromkeys(names[start : start + 1_000], 1))


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000, help="waiting jobs, and as many delayed ones")
    jobs: int = parser.parse_args().jobs
    with RedisServer() as server:
        found = {"server": f"{server.binary.name} {server.binary.version}"}
        found |= asyncio.run(measure(Backlog(server.url), jobs))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    sys.stdout.write(RESULTS.read_text("utf-8"))


if __name__ == "__main__":
    main()
