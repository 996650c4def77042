"""What Sentinel and Redis Cluster cost beside a single server: jobs a second of one worker on each, in turn.

    python -m benchmarks.topologies --rounds 3 --delay 50

The worker has 200 slots. All jobs are on the queue before it starts. The window opens a little after the first events.
Sentinels, replicas and the other nodes of the cluster run on the same machine, and what they use is missing to the
worker: so the figures say what a topology costs here, not what it costs where each server has a machine of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import redis

from benchmarks.processes import Process
from benchmarks.stage import HOST, REDIS_OPTIONS, ROOT, TOKEN, Stage
from sandbox.free_port import free_port
from sandbox.redis_cluster import RedisCluster
from sandbox.redis_sentinels import MASTER_NAME, RedisSentinels
from sandbox.redis_server import RedisServer
from sandbox.server_binaries import available_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

QUEUE = "{bench}.lock"
RESULTS = "{bench}.results"
KINDS = ("single", "sentinel", "cluster")
_JOBS = 25_000
_BURST = 1_000
_WARM_UP_SECONDS = 0.7
_WINDOW_SECONDS = 3.0
_PATIENCE_SECONDS = 60.0


@contextmanager
def servers(kind: str) -> Iterator[tuple[str, str]]:
    """Start the servers; gives REDIS_URL for the worker, and the URL of the server that has the queue."""
    binary = available_servers()[0]
    with ExitStack() as stack:
        if kind == "sentinel":
            sentinels = stack.enter_context(RedisSentinels(binary, REDIS_OPTIONS))
            yield f"redis+sentinel://{sentinels.addresses}/{MASTER_NAME}/0", sentinels.primary().url
        elif kind == "cluster":
            cluster = stack.enter_context(RedisCluster(binary, REDIS_OPTIONS))
            yield f"redis+cluster://{cluster.addresses}/", cluster.owner(QUEUE).url
        else:
            server = stack.enter_context(RedisServer(binary, REDIS_OPTIONS))
            yield server.url, server.url


def fill(client: redis.Redis) -> None:
    """Put all jobs on the queue, as the README's recipe for any language does."""
    for first in range(0, _JOBS, _BURST):
        client.lpush(QUEUE, *(_message(number) for number in range(first, first + _BURST)))


def _message(number: int) -> str:
    return json.dumps(
        {
            "headers": {"task": "moderation.lock_conversation", "id": f"job-{number}"},
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {"body_encoding": "utf-8"},
            "body": json.dumps([[], {"conversation_id": f"conversation-{number}"}, {}]),
        }
    )


def jobs_per_second(stage: Stage, kind: str, delay_ms: int, logs: Path) -> float:
    """Run one worker on fresh servers."""
    with servers(kind) as (url, owner), redis.Redis.from_url(owner) as client:
        fill(client)
        environment = {
            "PYTHONPATH": str(ROOT), "REDIS_URL": url, "LOCK_QUEUE": QUEUE, "RESULTS_CHANNEL": RESULTS,
            "DEAD_STREAM": "{bench}.dead", "CONTROL_STREAM": "{bench}.control", "API_URL": stage.api_url(delay_ms),
            "API_TOKEN": TOKEN, "HEALTH_HOST": HOST, "HEALTH_PORT": str(free_port(HOST)), "LOG_FORMAT": "json",
        }  # fmt: skip
        command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-c", "200", "-l", "INFO"]
        with Process(command, environment=environment, directory=ROOT, log=logs / f"{kind}.log") as worker:
            begun = time.perf_counter()
            while not client.xlen(RESULTS):
                if not worker.is_running or time.perf_counter() - begun > _PATIENCE_SECONDS:
                    raise SystemExit(f"{kind}: no event:\n{worker.tail()}")
                time.sleep(0.02)
            time.sleep(_WARM_UP_SECONDS)
            opened, events = time.perf_counter(), int(client.xlen(RESULTS))
            time.sleep(_WINDOW_SECONDS)
            done, seconds = int(client.xlen(RESULTS)), time.perf_counter() - opened
            if done >= _JOBS:
                raise SystemExit(f"{kind}: all jobs were done within the window")
            return (done - events) / seconds


def main() -> None:
    """Run each kind in turn, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.topologies", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=int, default=50, help="median of the API, in ms")
    options = parser.parse_args()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with TemporaryDirectory() as folder, Stage([options.delay], 7, Path(folder)) as stage:
        for number in range(options.rounds):
            for kind in KINDS:
                found[kind].append(jobs_per_second(stage, kind, options.delay, Path(folder)))
                sys.stdout.write(f"round {number + 1}  {kind:9} {found[kind][-1]:6.0f} jobs/s\n")
                sys.stdout.flush()
    single = statistics.median(found["single"])
    for kind, values in found.items():
        median = statistics.median(values)
        sys.stdout.write(f"{kind:9} median {median:6.0f} jobs/s, {median / single:.2f} of the single server\n")


if __name__ == "__main__":
    main()
