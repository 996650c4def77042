"""What a run needs around it: the API, a fresh Redis server, a producer, a worker. All end with it."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis

from benchmarks import environments
from benchmarks.processes import Process
from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.rows import Row

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent
TOKEN = "t" * 40
#: Lines of the server's configuration, for all rows: no persistence of any kind.
REDIS_OPTIONS: dict[str, str | int] = {"appendonly": "no"}
#: The size of stock httpx's pool that did best with 200 jobs at once, by the API's median delay in ms.
STOCK_POOL = {0: 10, 50: 20, 200: 30}
_ENQUEUE_SECONDS = 180.0


class StageError(Exception):
    """Something around the worker failed; the message tells what it logged."""


class Stage:
    """The API, from the ``with`` on; the rest comes and goes for each run."""

    def __init__(self, medians_ms: list[int], seed: int, logs: Path) -> None:
        self._medians_ms = medians_ms
        self.seed = seed
        self._logs = logs
        self._server: RedisServer | None = None
        self._ports: dict[int, int] = {}
        self._asking: socket.socket | None = None
        self.api: Process

    def __enter__(self) -> Self:
        self.api = Process(
            [environments.python("job"), "-m", "benchmarks.upstream", "--seed", str(self.seed),
             *map(str, self._medians_ms)],
            environment={"PYTHONPATH": str(ROOT)},
            directory=ROOT,
            log=self._logs / "api.log",
            pipes=True,
        )  # fmt: skip
        assert self.api.popen.stdout is not None  # noqa: S101 - asked for above
        ports = self.api.popen.stdout.readline()
        if not ports:
            raise StageError(f"the API did not come up:\n{self.api.tail()}")
        self._ports = {int(median_ms): port for median_ms, port in json.loads(ports).items()}
        self._asking = socket.create_connection((HOST, next(iter(self._ports.values()))))
        return self

    def __exit__(self, *_: object) -> None:
        if self._asking is not None:
            self._asking.close()
        self.api.kill()

    def locks(self) -> int:
        """How many locks the API has answered or is about to, since the current server is there."""
        return self._locks_ever() - self._locks_before

    def api_url(self, median_ms: int) -> str:
        """Where the API answers after such a delay."""
        return f"http://{HOST}:{self._ports[median_ms]}"

    @contextmanager
    def fresh_server(self) -> Iterator[redis.Redis]:
        """An empty Redis server; gives a client of it."""
        with RedisServer(options=REDIS_OPTIONS) as server, redis.Redis.from_url(server.url) as client:
            self._server = server
            self._locks_before = self._locks_ever()
            try:
                yield client
            finally:
                self._server = None

    @property
    def server_url(self) -> str:
        """The current server's."""
        assert self._server is not None  # noqa: S101 - only asked for within `fresh_server`
        return self._server.url

    def enqueue(self, row: Row, jobs: int) -> None:
        """Enqueue so many jobs, as fast as the queue's own client can.

        Raises:
            StageError: it failed.
        """
        with self._producer(row, ["--jobs", str(jobs)]) as producer:
            status = producer.popen.wait(_ENQUEUE_SECONDS)
            if status:
                raise StageError(f"enqueuing failed:\n{producer.tail()}")

    @contextmanager
    def timetable(self, row: Row, first: int, gaps: list[float]) -> Iterator[Process]:
        """A producer that sends a job before each gap, once `moments` lets it."""
        arguments = ["--first", str(first), "--gaps", ",".join(f"{gap:.5f}" for gap in gaps)]
        with self._producer(row, arguments) as producer:
            yield producer

    def moments(self, producer: Process) -> list[float]:
        """Let a producer go through its timetable; the moments at which it began to send each job.

        Raises:
            StageError: it failed.
        """
        assert producer.popen.stdin is not None  # noqa: S101 - asked for when it was started
        assert producer.popen.stdout is not None  # noqa: S101 - as above
        producer.popen.stdin.write("\n")
        producer.popen.stdin.flush()
        answer = producer.popen.stdout.readline()
        if not answer:
            raise StageError(f"enqueuing failed:\n{producer.tail()}")
        return [float(moment) for moment in json.loads(answer)]

    @contextmanager
    def worker(self, row: Row, median_ms: int) -> Iterator[Process]:
        """A row's worker; killed in the end, since there is nothing to lose."""
        environment = {
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": self.server_url,
            "API_URL": self.api_url(median_ms),
            "API_TOKEN": TOKEN,
            "HEALTH_HOST": HOST,
            "HEALTH_PORT": str(free_port(HOST)),
            "BENCH_CONCURRENCY": "200",
            "BENCH_POOL": str(STOCK_POOL[min(STOCK_POOL, key=lambda known: abs(known - median_ms))]),
            **row.variables,
        }
        with Process(
            [row.python, *row.command], environment=environment, directory=ROOT, log=self._log(row, "worker")
        ) as worker:
            yield worker

    def _producer(self, row: Row, arguments: list[str]) -> Process:
        assert row.producer is not None  # noqa: S101 - rows without a queue enqueue nothing
        return Process(
            [row.python, "-m", "benchmarks.enqueue", row.producer, *arguments],
            environment={"PYTHONPATH": str(ROOT), "REDIS_URL": self.server_url},
            directory=ROOT,
            log=self._log(row, "producer"),
            pipes=True,
        )

    def _log(self, row: Row, what: str) -> Path:
        log = self._logs / f"{row.name.replace(' ', '-').replace(',', '')}.{what}.log"
        log.write_bytes(b"")
        return log

    def _locks_ever(self) -> int:
        assert self._asking is not None  # noqa: S101 - open as long as the API is
        self._asking.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return int(self._asking.recv(1024).rpartition(b"\r\n\r\n")[2])
