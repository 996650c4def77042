"""The numbers, as they are kept in JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Throughput:
    """One run of one row.

    Attributes:
        row: its name.
        median_ms: the API's median delay.
        enqueued: jobs that waited when the worker started; 0 for a row without a queue.
        start_seconds: from the start of the worker's process to its first event, the API's delay included.
        seconds: how long the window was.
        events: events in it.
        jobs_per_second: events a second.
        worker_cpu_us: microseconds of CPU a job, all processes of the worker.
        worker_cores: cores that the worker used.
        redis_cpu_us: microseconds of CPU a job of the Redis server.
        redis_commands: commands a job, those inside scripts counted each.
        redis_reads: times a job that the server read from a socket, about its round trips.
        processes: processes of the worker.
        memory_mib: memory of all its processes after the window, shared pages counted in parts (PSS).
        peak_rss_mib: the sum of its processes' largest resident sizes.
        api_cpu_us: microseconds of CPU a job of the API that was called.
        api_cores: cores that the API used.
        others_cores: cores used by what is no part of the benchmark; above 0.25 a run was disturbed.
    """

    row: str
    median_ms: int
    enqueued: int
    start_seconds: float
    seconds: float
    events: int
    jobs_per_second: float
    worker_cpu_us: float
    worker_cores: float
    redis_cpu_us: float
    redis_commands: float
    redis_reads: float
    processes: int
    memory_mib: float
    peak_rss_mib: float
    api_cpu_us: float
    api_cores: float
    others_cores: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Times from enqueuing to the event, as a subscriber of the channel sees it, in milliseconds.

    ``added`` is the same less the time that the API took for that very job. The ``steady_`` costs are microseconds of
    CPU and commands a job while jobs come steadily, with all that is done beside them; ``reads`` are times that the
    server read from a socket, about the round trips.
    """

    row: str
    median_ms: int
    steady_per_second: float
    steady_jobs: int
    steady_p50_ms: float
    steady_p99_ms: float
    steady_added_p50_ms: float
    steady_added_p99_ms: float
    steady_worker_cpu_us: float
    steady_redis_cpu_us: float
    steady_redis_commands: float
    steady_redis_reads: float
    idle_jobs: int
    idle_p50_ms: float
    idle_max_ms: float
    idle_added_p50_ms: float
    idle_added_max_ms: float
    nothing_to_do_worker_cpu_ms_per_second: float
    nothing_to_do_redis_cpu_ms_per_second: float
    nothing_to_do_redis_commands_per_second: float
    nothing_to_do_redis_reads_per_second: float
    others_cores: float


@dataclass(slots=True)
class Report:
    """All of one `make bench`; each row's latencies are those of a single run."""

    conditions: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    throughput: list[Throughput] = field(default_factory=list)
    latency: list[Latency] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def of(self, row: str, median_ms: int) -> list[Throughput]:
        """A row's runs against one delay."""
        return [run for run in self.throughput if run.row == row and run.median_ms == median_ms]

    def disturbed(self) -> tuple[int, int, float]:
        """Runs beside which something else used the machine, all runs, and the cores that it used at most."""
        limit = self.conditions["disturbed_above_cores"]
        runs: list[Throughput | Latency] = [*self.throughput, *self.latency]
        others = [run.others_cores for run in runs]
        return sum(cores > limit for cores in others), len(others), max(others, default=0.0)

    def latency_of(self, row: str) -> Latency | None:
        """A row's latencies, if they were measured."""
        return next((found for found in self.latency if found.row == row), None)


def read(path: Path) -> Report:
    """Read a report that was written."""
    raw = json.loads(path.read_text())
    return Report(
        conditions=raw["conditions"],
        rows=raw["rows"],
        throughput=[Throughput(**run) for run in raw["throughput"]],
        latency=[Latency(**run) for run in raw["latency"]],
        failures=raw["failures"],
    )


def median(runs: list[Throughput], field_name: str) -> float:
    """The median of one number over runs."""
    return float(statistics.median(getattr(run, field_name) for run in runs))


def machine() -> dict[str, Any]:
    """What it ran on."""
    about_the_cpu = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in about_the_cpu if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
