"""How many jobs a worker does in a second, and what each costs.

All jobs are enqueued first, then the worker is started. The clock runs in a window in the middle: it opens a little
after the first events, so that start-up, connecting and the interpreter's warming up are left out, and closes after a
fixed time, or when nearly all jobs are done. At both ends events, CPU and the server's counters are read at one
moment; what lies between is divided by the events between.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from benchmarks import processes
from benchmarks.peers.job import STREAM
from benchmarks.results import Throughput
from benchmarks.server import Counters, counters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from benchmarks.rows import Row
    from benchmarks.stage import Stage

_LOOK_SECONDS = 0.02
_WARM_UP_SECONDS = 0.7
_WARM_UP_EVENTS = 50
_NEARLY_ALL = 0.93
#: Of the window that was asked for: less says more about the warming up than about the row.
_SHORTEST_WINDOW = 0.9
_PATIENCE_SECONDS = 25.0
_PAGE = 2000
_ID = re.compile(rb'"id":"(job-\d+)"')


class RunFailedError(Exception):
    """A run gave no number; the message tells why."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    worker_cpu: float
    api_cpu: float
    machine_cpu: float
    own_cpu: float
    locks: int
    server: Counters


def measure(stage: Stage, row: Row, *, median_ms: int, window_seconds: float) -> Throughput:
    """Run a row once on a fresh server.

    Raises:
        RunFailedError: the worker ended, stood still, or what it published is not what it should have.
    """
    jobs = round(row.at_most * (window_seconds + 2 * _WARM_UP_SECONDS))
    with stage.fresh_server() as client:
        if jobs:
            stage.enqueue(row, jobs)
        started_at = time.perf_counter()
        with stage.worker(row, median_ms) as worker:
            watch = _Watch(stage, client, worker)
            first_at = watch.wait_for_the_first()
            opened = watch.open(first_at)
            closed = watch.close(opened.at + window_seconds, round(_NEARLY_ALL * jobs) if jobs else None)
            memory = processes.memory(worker.pid)
            members = processes.count(worker.pid)
            _check(client, worker, closed)
    seconds = closed.at - opened.at
    events = closed.server.events - opened.server.events
    if seconds < window_seconds * _SHORTEST_WINDOW:
        raise RunFailedError(f"the jobs were done within {seconds:.2f} s: enqueue more")
    if not events:
        raise RunFailedError(f"nothing was done for {seconds:.0f} s:\n{worker.tail()}")
    looks = round(seconds / _LOOK_SECONDS) if jobs else 0  # nobody looks how far a row is that has no end
    worker_cpu = closed.worker_cpu - opened.worker_cpu
    api_cpu = closed.api_cpu - opened.api_cpu
    redis_cpu = closed.server.cpu_seconds - opened.server.cpu_seconds
    others = closed.machine_cpu - opened.machine_cpu - worker_cpu - api_cpu - redis_cpu
    others -= closed.own_cpu - opened.own_cpu
    return Throughput(
        row=row.name,
        median_ms=median_ms,
        enqueued=jobs,
        start_seconds=first_at - started_at,
        seconds=seconds,
        events=events,
        jobs_per_second=events / seconds,
        worker_cpu_us=worker_cpu / events * 1e6,
        worker_cores=worker_cpu / seconds,
        redis_cpu_us=redis_cpu / events * 1e6,
        # Our own looks are a command and a read each; they are taken out again.
        redis_commands=(closed.server.commands - opened.server.commands - looks) / events,
        redis_reads=(closed.server.reads - opened.server.reads - looks) / events,
        processes=members,
        memory_mib=memory.pss_mib,
        peak_rss_mib=memory.peak_rss_mib,
        api_cpu_us=api_cpu / events * 1e6,
        api_cores=api_cpu / seconds,
        others_cores=max(0.0, others / seconds),
    )


class _Watch:
    """Looks at a run from outside."""

    def __init__(self, stage: Stage, client: redis.Redis, worker: processes.Process) -> None:
        self._stage = stage
        self._client = client
        self._worker = worker

    def wait_for_the_first(self) -> float:
        """Wait for the first event; the moment in which it was seen."""
        deadline = time.perf_counter() + _PATIENCE_SECONDS
        while not self._events():
            self._pause(deadline)
        return time.perf_counter()

    def open(self, first_at: float) -> _Look:
        """Wait until the worker is well under way."""
        while self._events() < _WARM_UP_EVENTS or time.perf_counter() - first_at < _WARM_UP_SECONDS:
            self._pause(first_at + _PATIENCE_SECONDS)
        return self._look()

    def close(self, at: float, events: int | None) -> _Look:
        """Wait for a moment, or for so many events if they come before."""
        while True:
            now = time.perf_counter()
            if now >= at or (events is not None and self._events() >= events):
                return self._look()
            self._pause(at + _PATIENCE_SECONDS)

    def _look(self) -> _Look:
        server = counters(self._client, STREAM)
        return _Look(
            at=time.perf_counter(),
            worker_cpu=processes.cpu_seconds(self._worker.pid),
            api_cpu=processes.cpu_of(self._stage.api.pid),
            machine_cpu=processes.machine_cpu_seconds(),
            own_cpu=time.process_time(),
            locks=self._stage.locks(),
            server=server,
        )

    def _events(self) -> int:
        return self._client.xlen(STREAM)

    def _pause(self, deadline: float) -> None:
        if not self._worker.is_running:
            raise RunFailedError(f"the worker ended:\n{self._worker.tail()}")
        if time.perf_counter() > deadline:
            raise RunFailedError(f"no or too few events:\n{self._worker.tail()}")
        time.sleep(_LOOK_SECONDS)


def _check(client: redis.Redis, worker: processes.Process, closed: _Look) -> None:
    """Every event is that of another job, tells a lock, and stands for a call."""
    seen: Counter[bytes] = Counter()
    for body in _bodies(client):
        found = _ID.search(body)
        if found is None or b'"type":"conversation.locked"' not in body or b'"conversation":{' not in body:
            raise RunFailedError(f"an event is not what it should be: {body[:300]!r}\n{worker.tail()}")
        seen[found[1]] += 1
    twice = sum(times - 1 for times in seen.values())
    if twice:
        raise RunFailedError(f"{twice} of {sum(seen.values())} jobs were done twice")
    if closed.locks < closed.server.events:
        raise RunFailedError(f"{closed.server.events} events, but only {closed.locks} calls")


def _bodies(client: redis.Redis) -> Iterator[bytes]:
    start = "-"
    while True:
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(STREAM, min=start, count=_PAGE))
        for _, fields in entries:
            yield fields[b"event"]
        if len(entries) < _PAGE:
            return
        start = f"({entries[-1][0].decode()}"
