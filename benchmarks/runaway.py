"""What a rule that has gone wild does to the jobs of all other rules, with a limit for rules.

    python -m benchmarks.runaway --workers 2 --rounds 3

Two layouts, each with the wild rule's jobs and without them, in turn. ``stream``: others' jobs come one by one, and all
of the wild rule's at once in the middle of them. ``mixed``: all come at once, the others spread evenly among the wild
ones. The clock of a job starts right before its ``LPUSH``, and stops when a subscriber of the channel has its event.
In the end the rule is released, and each job must have its one event.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import redis

from benchmarks.peers.lock_worker import QUEUE, TASK
from benchmarks.processes import Process, cpu_of, cpu_seconds
from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from worker.broker.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
STREAM = "moderation.results"
HOST = "127.0.0.1"
KEYS = Keys(QUEUE)
_BURST = 1_000
_OTHERS_AT_ONCE = 50
_PATIENCE_SECONDS = 60.0
_WARM_UP = 300
_RULES = 50
_COMMAND = str(Path(sys.executable).parent / "lock-worker")
_ID = re.compile(rb'"job_id":"(job-[a-z]+-\d+)"')


@dataclass(frozen=True, slots=True)
class Round:
    """What one round showed; times in milliseconds."""

    layout: str
    wild: int
    p50: float
    p95: float
    p99: float
    largest: float
    set_aside: float = 0.0
    locked_wild: int = 0
    worker_us: float = 0.0
    redis_us: float = 0.0


@dataclass(slots=True)
class Events:
    """When the first event of each job came to a subscriber."""

    url: str
    at: dict[str, float] = field(default_factory=dict)
    count: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def of(self, kind: str) -> int:
        """Return how many jobs of a kind have an event."""
        return sum(job.startswith(f"job-{kind}-") for job in list(self.at))

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Note events meanwhile."""
        listener = threading.Thread(target=self._listen)
        listener.start()
        try:
            yield
        finally:
            self.ended.set()
            listener.join()

    def _listen(self) -> None:
        with redis.Redis.from_url(self.url) as client, client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(STREAM)
            while not self.ended.is_set():
                message = channel.get_message(timeout=0.1)
                if message is not None and (found := _ID.search(message["data"])):
                    self.count += 1
                    self.at.setdefault(found[1].decode(), time.time())


def message(job: str, rule: str) -> bytes:
    """Return a job as a stock Celery client writes it, about."""
    body = json.dumps([[], {"conversation_id": f"c-{job}", "rule_id": rule}, {}]).encode()
    headers = {"id": job, "task": TASK, "root_id": job, "lang": "py", "retries": 0, "eta": None, "expires": None,
               "group": None, "argsrepr": "()", "kwargsrepr": "{}", "origin": "a client"}  # fmt: skip
    properties = {"correlation_id": job, "delivery_mode": 2, "delivery_tag": job, "body_encoding": "base64",
                  "delivery_info": {"exchange": "", "routing_key": QUEUE}, "priority": 0}  # fmt: skip
    return json.dumps(
        {"body": base64.b64encode(body).decode(), "content-encoding": "utf-8", "content-type": "application/json",
         "headers": headers, "properties": properties}
    ).encode()  # fmt: skip


@contextmanager
def upstream(delay_ms: int, log: Path) -> Iterator[str]:
    """An API that answers after a delay; gives its address."""
    with Process(
        [sys.executable, "-m", "benchmarks.upstream", "--seed", "7", str(delay_ms)],
        environment={"PYTHONPATH": str(ROOT)}, directory=ROOT, log=log, pipes=True,
    ) as api:  # fmt: skip
        assert api.popen.stdout is not None  # noqa: S101 - asked for above
        yield f"http://{HOST}:{json.loads(api.popen.stdout.readline())[str(delay_ms)]}"


def environment(url: str, api: str) -> dict[str, str]:
    """Return the settings of a worker."""
    return {"PYTHONPATH": str(ROOT), "REDIS_URL": url, "API_URL": api, "API_TOKEN": "t" * 40, "HEALTH_HOST": HOST,
            "HEALTH_PORT": str(free_port(HOST)), "RULE_LIMIT": "200/10m", "LOCK_WORKER_ACTOR": "benchmark"}  # fmt: skip


def until(done: Any, what: str) -> float:
    """Wait until something is so; return when that was seen."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"this did not come: {what}")
        time.sleep(0.005)
    return time.time()


def send(client: redis.Redis, layout: str, wild: list[bytes], others: list[bytes]) -> tuple[list[float], float]:
    """Send the jobs; return when each of the others was sent, and the first of the wild ones."""
    sent: list[float] = []
    if layout == "mixed":
        step = len(wild) // len(others)
        for at in range(0, len(others), _OTHERS_AT_ONCE):
            batch = [part for number in range(at, at + _OTHERS_AT_ONCE)
                     for part in (*wild[number * step : (number + 1) * step], others[number])]  # fmt: skip
            sent += [time.time()] * _OTHERS_AT_ONCE
            client.lpush(QUEUE, *batch)
        return sent, sent[0]
    due, burst_at = time.perf_counter(), 0.0
    for number, other in enumerate(others):
        if number == len(others) // 5:
            burst_at = time.time()
            for start in range(0, len(wild), _BURST):
                client.lpush(QUEUE, *wild[start : start + _BURST])
        time.sleep(max(0.0, due - time.perf_counter()))
        sent.append(time.time())
        client.lpush(QUEUE, other)
        due += 0.01
    return sent, burst_at


def run(layout: str, wild: int, options: argparse.Namespace, logs: Path) -> Round:
    """Run one round on a fresh server."""
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(options={"appendonly": "no"}))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        variables = environment(server.url, stack.enter_context(upstream(options.delay, logs / "api.log")))
        events = Events(server.url)
        stack.enter_context(events.heard())
        workers = [stack.enter_context(worker(options, variables, logs, number)) for number in range(options.workers)]
        client.lpush(QUEUE, *(message(f"job-warm-{number}", f"r-{number % _RULES}") for number in range(_WARM_UP)))
        until(lambda: len(events.at) == _WARM_UP, "the events of the first jobs")
        until(lambda: client.hlen(KEYS.workers) == options.workers, "all workers")
        others = [message(f"job-calm-{number}", f"s-{number % _RULES}") for number in range(options.others)]
        runaway = [message(f"job-wild-{number}", "wild") for number in range(wild)]
        aside: list[float] = []
        watch = threading.Thread(target=lambda: aside.append(_set_aside(server.url, events, wild)))
        used, server_used = sum(cpu_seconds(each.pid) for each in workers), _cpu_of(client)
        watch.start()
        sent, burst_at = send(client, layout, runaway, others)
        watch.join()
        until(lambda: events.of("calm") == len(others), "the events of the others")
        used, server_used = sum(cpu_seconds(each.pid) for each in workers) - used, _cpu_of(client) - server_used
        times = [(events.at[f"job-calm-{number}"] - moment) * 1000 for number, moment in enumerate(sent)]
        percentiles = statistics.quantiles(times, n=100, method="inclusive")
        locked, jobs = events.of("wild"), wild + len(others)
        if wild:
            _release(variables)
            until(
                lambda: events.of("wild") + client.zcard(KEYS.held) == wild and client.zcard(KEYS.held) == 0, "an end"
            )
            if events.count != _WARM_UP + jobs:
                raise SystemExit(f"{events.count} events of {_WARM_UP + jobs} jobs")
        return Round(
            layout, wild, statistics.median(times), percentiles[94], percentiles[98],
            max(times), max(0.0, aside[0] - burst_at) * 1000, locked, used / jobs * 1e6, server_used / jobs * 1e6,
        )  # fmt: skip


def worker(options: argparse.Namespace, variables: dict[str, str], logs: Path, number: int) -> Process:
    """Return a worker that starts with the ``with``."""
    arguments = ["-m", "celery", "-A", "worker", "worker", "-c", str(options.concurrency), "-l", "WARNING"]
    own = {**variables, "HEALTH_PORT": str(free_port(HOST))}
    return Process([sys.executable, *arguments], environment=own, directory=ROOT, log=logs / f"worker-{number}.log")


def _set_aside(url: str, events: Events, wild: int) -> float:
    """Return when all jobs of the wild rule were set aside or had ended."""
    if not wild:
        return 0.0
    with redis.Redis.from_url(url) as client:
        return until(lambda: events.of("wild") + client.zcard(KEYS.held) == wild, "all jobs of the rule set aside")


def _cpu_of(client: redis.Redis) -> float:
    return cpu_of(int(client.info("server")["process_id"]))


def _release(variables: dict[str, str]) -> None:
    command = [_COMMAND, "release", "--rule", "wild", "--reason", "measured"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=True, capture_output=True)


def main() -> None:
    """Measure, and print a line for each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--wild", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=500)
    parser.add_argument("--delay", type=int, default=0, help="the API's median delay in ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layouts", nargs="+", default=["stream", "mixed"])
    options = parser.parse_args()
    with TemporaryDirectory() as logs:
        for layout in options.layouts:
            for wild in (options.wild, 0) * options.rounds:
                found = run(layout, wild, options, Path(logs))
                sys.stdout.write(
                    f"{found.layout:7} {found.wild:6} wild: others p50 {found.p50:7.1f} p95 {found.p95:7.1f} "
                    f"p99 {found.p99:7.1f} max {found.largest:7.1f} ms; set aside after {found.set_aside:6.0f} ms, "
                    f"{found.locked_wild} locked; CPU a job: workers {found.worker_us:4.0f} us, "
                    f"Redis {found.redis_us:4.0f} us\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
