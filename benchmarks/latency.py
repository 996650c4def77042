"""How long a job takes from its enqueuing to its event, when there is little to do.

One worker, warmed up with a few hundred jobs. Then in turn: a steady stream of jobs, a few seconds of silence (what
does a worker cost that has nothing to do?), and single jobs with irregular pauses, so that a worker that polls is met
at any moment of its round. The clock of a job starts right before the producer's call, and stops when a subscriber of
the channel has the event.
"""

from __future__ import annotations

import random
import re
import statistics
import threading
import time
from typing import TYPE_CHECKING

from benchmarks import processes, upstream
from benchmarks.peers.job import STREAM
from benchmarks.results import Latency
from benchmarks.server import counters
from benchmarks.throughput import RunFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from benchmarks.rows import Row
    from benchmarks.stage import Stage

STEADY_PER_SECOND = 100.0
_WARM_UP_JOBS = 300
_STEADY_FIRST = 10_000
_STEADY_LEFT_OUT = 50
_IDLE_FIRST = 20_000
_SILENCE_SECONDS = 3.0
_PATIENCE_SECONDS = 20.0
#: What one look at the server's counters is to the server.
_OWN_COMMANDS = 3
_OWN_READS = 1
_POLL_SECONDS = 0.02
_ID = re.compile(rb'"id":"job-(\d+)"')


class _Subscriber:
    """Notes when the event of each job came."""

    def __init__(self, client: redis.Redis) -> None:
        self.moments: dict[int, float] = {}
        self._channel = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py has no types for it
        self._channel.subscribe(STREAM)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._channel.close()

    def _listen(self) -> None:
        while not self._ended.is_set():
            message = self._channel.get_message(timeout=0.1)
            if message is not None:
                now = time.time()
                found = _ID.search(message["data"])
                if found is not None:
                    self.moments[int(found[1])] = now


def measure(stage: Stage, row: Row, *, median_ms: int, steady_seconds: float, idle_jobs: int) -> Latency:
    """Run a row once on a fresh server.

    Raises:
        RunFailedError: the worker ended, or events are missing.
    """
    steady = [1 / STEADY_PER_SECOND] * (round(steady_seconds * STEADY_PER_SECOND) + _STEADY_LEFT_OUT)
    chance = random.Random(row.name)
    idle = [chance.uniform(0.3, 0.6) for _ in range(idle_jobs)]
    with stage.fresh_server() as client:
        stage.enqueue(row, _WARM_UP_JOBS)
        subscriber = _Subscriber(client)
        try:
            with (
                stage.worker(row, median_ms) as worker,
                stage.timetable(row, _STEADY_FIRST, steady) as steady_producer,
                stage.timetable(row, _IDLE_FIRST, idle) as idle_producer,
            ):
                got = subscriber.moments

                def wait_for(numbers: range) -> None:
                    _wait(worker, lambda: all(number in got for number in numbers))

                wait_for(range(_WARM_UP_JOBS))
                at, machine, own, used = (time.perf_counter(), processes.machine_cpu_seconds(), time.process_time(),
                                          _used(stage, client, worker, steady_producer))  # fmt: skip
                begun, begun_cpu = counters(client, STREAM), processes.cpu_seconds(worker.pid)
                steady_sent = stage.moments(steady_producer)
                wait_for(range(_STEADY_FIRST, _STEADY_FIRST + len(steady)))
                done, done_cpu = counters(client, STREAM), processes.cpu_seconds(worker.pid)
                elapsed = time.perf_counter() - at
                others = processes.machine_cpu_seconds() - machine - (time.process_time() - own)
                others -= _used(stage, client, worker, steady_producer) - used
                time.sleep(0.3)
                before, cpu = counters(client, STREAM), processes.cpu_seconds(worker.pid)
                time.sleep(_SILENCE_SECONDS)
                after, cpu_after = counters(client, STREAM), processes.cpu_seconds(worker.pid)
                idle_sent = stage.moments(idle_producer)
                wait_for(range(_IDLE_FIRST, _IDLE_FIRST + len(idle)))
        finally:
            subscriber.end()
    steady_ms, steady_added = _times(steady_sent, _STEADY_FIRST, got, median_ms, stage.seed)
    idle_ms, idle_added = _times(idle_sent, _IDLE_FIRST, got, median_ms, stage.seed)
    steady_ms, steady_added = steady_ms[_STEADY_LEFT_OUT:], steady_added[_STEADY_LEFT_OUT:]
    return Latency(
        row=row.name,
        median_ms=median_ms,
        steady_per_second=STEADY_PER_SECOND,
        steady_jobs=len(steady_ms),
        steady_p50_ms=statistics.median(steady_ms),
        steady_p99_ms=_p99(steady_ms),
        steady_added_p50_ms=statistics.median(steady_added),
        steady_added_p99_ms=_p99(steady_added),
        steady_worker_cpu_us=(done_cpu - begun_cpu) / len(steady) * 1e6,
        steady_redis_cpu_us=(done.cpu_seconds - begun.cpu_seconds) / len(steady) * 1e6,
        steady_redis_commands=(done.commands - begun.commands - _OWN_COMMANDS) / len(steady),
        steady_redis_reads=(done.reads - begun.reads - _OWN_READS) / len(steady),
        idle_jobs=len(idle_ms),
        idle_p50_ms=statistics.median(idle_ms),
        idle_max_ms=max(idle_ms),
        idle_added_p50_ms=statistics.median(idle_added),
        idle_added_max_ms=max(idle_added),
        nothing_to_do_worker_cpu_ms_per_second=(cpu_after - cpu) / _SILENCE_SECONDS * 1000,
        nothing_to_do_redis_cpu_ms_per_second=(after.cpu_seconds - before.cpu_seconds) / _SILENCE_SECONDS * 1000,
        nothing_to_do_redis_commands_per_second=max(0, after.commands - before.commands - _OWN_COMMANDS)
        / _SILENCE_SECONDS,
        nothing_to_do_redis_reads_per_second=max(0, after.reads - before.reads - _OWN_READS) / _SILENCE_SECONDS,
        others_cores=max(0.0, others / elapsed),
    )


def _used(stage: Stage, client: redis.Redis, worker: processes.Process, producer: processes.Process) -> float:
    known = (worker, producer)
    cpu = sum(processes.cpu_seconds(process.pid) for process in known) + processes.cpu_of(stage.api.pid)
    return cpu + counters(client, STREAM).cpu_seconds


def _wait(worker: processes.Process, is_over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_over():
        if not worker.is_running:
            raise RunFailedError(f"the worker ended:\n{worker.tail()}")
        if time.monotonic() > deadline:
            raise RunFailedError(f"events are missing:\n{worker.tail()}")
        time.sleep(_POLL_SECONDS)


def _times(
    sent: list[float], first: int, got: dict[int, float], median_ms: int, seed: int
) -> tuple[list[float], list[float]]:
    whole = [(got[number] - moment) * 1000 for number, moment in enumerate(sent, first)]
    api = [
        upstream.delay_seconds(f"conversation-{number}", median_ms, seed) * 1000
        for number in range(first, first + len(sent))
    ]
    return whole, [time_ms - api_ms for time_ms, api_ms in zip(whole, api, strict=True)]


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]
