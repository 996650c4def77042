"""What one Redis carries: 1, 2, 4 and 8 workers on one queue, and the model that their numbers give.

    python -m benchmarks.scale

On a machine with few cores the workers soon share them, so their throughput does not grow with their number; what a
job costs Redis is what matters here. The model:

    Redis CPU per second = jobs x per_job + script calls x per_call + idle workers x per_idle_worker

The first two are fitted over all points (least squares), the third is measured with workers that have nothing to do.
Each point's prediction is shown beside what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import bulk, processes, quiet
from benchmarks.results import machine
from benchmarks.rows import ROWS
from benchmarks.server import version
from benchmarks.stage import Stage

if TYPE_CHECKING:
    import redis

HERE = Path(__file__).parent
WORKERS = (1, 2, 4, 8)
MEDIANS_MS = (50, 1000)
#: Of one core: more than this, and what is asked for waits.
SAFE_SHARE = 0.7
_START_SECONDS = 60.0
_WARM_UP_SECONDS = 3.0
_COUNTERS = f"lw:1:{bulk.QUEUE}:counters"


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement. Script calls are counted by the server; CPU is its process's, in microseconds."""

    workers: int
    median_ms: int
    jobs_per_second: float
    redis_cpu_us_per_second: float
    redis_cpu_us_per_job: float
    calls_per_second: float
    calls_per_job: float
    worker_cpu_us_per_job: float
    others_cores: float


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    jobs: int
    redis_cpu: float
    calls: int
    worker_cpu: float
    ours: float
    machine: float


def measure(stage: Stage, workers: int, median_ms: int, seconds: float, jobs: int) -> Point:
    """Run so many workers for a while; ``jobs`` 0 is for workers with nothing to do."""
    with stage.fresh_server() as client, ExitStack() as stack:
        bulk.fill(client, stage.server_url, max(jobs, workers))
        running = [stack.enter_context(stage.worker(ROWS[0], median_ms)) for _ in range(workers)]
        deadline = time.monotonic() + _START_SECONDS
        while len(client.client_list()) < 1 + 3 * workers or not _jobs(client):
            if time.monotonic() > deadline:
                sys.exit(f"the workers did not come up:\n{running[0].tail()}")
            time.sleep(0.1)
        time.sleep(_WARM_UP_SECONDS)
        opened = _look(stage, client, running)
        time.sleep(seconds)
        closed = _look(stage, client, running)
        if jobs and not client.llen(bulk.QUEUE):
            sys.exit("the jobs were done before the time was over: enqueue more")
    elapsed, done = closed.at - opened.at, closed.jobs - opened.jobs
    cpu, calls = (closed.redis_cpu - opened.redis_cpu) * 1e6, closed.calls - opened.calls
    return Point(
        workers=workers,
        median_ms=median_ms,
        jobs_per_second=done / elapsed,
        redis_cpu_us_per_second=cpu / elapsed,
        redis_cpu_us_per_job=cpu / done if done else 0.0,
        calls_per_second=calls / elapsed,
        calls_per_job=calls / done if done else 0.0,
        worker_cpu_us_per_job=(closed.worker_cpu - opened.worker_cpu) / done * 1e6 if done else 0.0,
        others_cores=max(0.0, (closed.machine - opened.machine - closed.ours + opened.ours) / elapsed),
    )


def fit(points: list[Point]) -> tuple[float, float]:
    """The microseconds of Redis CPU a job and a script call cost, by least squares."""
    busy = [point for point in points if point.jobs_per_second]
    jj = sum(point.jobs_per_second**2 for point in busy)
    cc = sum(point.calls_per_second**2 for point in busy)
    jc = sum(point.jobs_per_second * point.calls_per_second for point in busy)
    jy = sum(point.jobs_per_second * point.redis_cpu_us_per_second for point in busy)
    cy = sum(point.calls_per_second * point.redis_cpu_us_per_second for point in busy)
    determinant = jj * cc - jc * jc
    return (jy * cc - cy * jc) / determinant, (cy * jj - jy * jc) / determinant


def _look(stage: Stage, client: redis.Redis, running: list[processes.Process]) -> _Look:
    cpu = client.info("cpu")
    calls = sum(stats["calls"] for name, stats in client.info("commandstats").items() if "evalsha" in name)
    worker_cpu = sum(processes.cpu_seconds(worker.pid) for worker in running)
    redis_cpu = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
    return _Look(
        at=time.perf_counter(),
        jobs=_jobs(client),
        redis_cpu=redis_cpu,
        calls=calls,
        worker_cpu=worker_cpu,
        ours=worker_cpu + redis_cpu + processes.cpu_of(stage.api.pid) + time.process_time(),
        machine=processes.machine_cpu_seconds(),
    )


def _jobs(client: redis.Redis) -> int:
    return int(client.hget(_COUNTERS, "finished") or 0)


def main() -> None:
    """Measure, and write ``results/scale.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--wait", type=float, default=10.0, help="seconds to wait for a quiet machine before each run")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "scale.json")
    options = parser.parse_args()
    logs = HERE / ".logs"
    logs.mkdir(exist_ok=True)
    conditions = {"machine": machine(), "redis": version()}
    points: list[Point] = []
    with Stage(list(MEDIANS_MS), 7, logs) as stage:
        for median_ms in MEDIANS_MS:
            for workers in WORKERS:
                quiet.wait_until_quiet(options.wait)
                points.append(
                    measure(stage, workers, median_ms, options.seconds, round(5_000 * (options.seconds + 15)))
                )
        quiet.wait_until_quiet(options.wait)
        idle = measure(stage, WORKERS[-1], MEDIANS_MS[0], options.seconds, 0)
    per_job, per_call = fit(points)
    per_idle = idle.redis_cpu_us_per_second / idle.workers
    for point in points:
        predicted = point.jobs_per_second * per_job + point.calls_per_second * per_call
        sys.stdout.write(
            f"{point.workers} workers, API {point.median_ms:4} ms: {point.jobs_per_second:6.0f} jobs/s, Redis "
            f"{point.redis_cpu_us_per_job:5.1f} us a job at {point.calls_per_job:5.3f} calls a job; the model says "
            f"{predicted / point.jobs_per_second:5.1f} us; others used {point.others_cores:.1f} cores\n"
        )
    sys.stdout.write(
        f"A job costs Redis {per_job:.1f} us, a script call {per_call:.1f} us, and a worker with nothing to do "
        f"{per_idle:.0f} us each second.\n"
    )
    # As many calls a job as a worker makes that has a core: those that share one send more jobs a call.
    per_second = SAFE_SHARE * 1e6 / (per_job + per_call * points[0].calls_per_job)
    carries = {"jobs_per_second": per_second, "idle_workers_at_a_tenth_of_a_core": 1e5 / per_idle if per_idle else None}
    sys.stdout.write(
        f"At {SAFE_SHARE:.0%} of a core one Redis carries {per_second:,.0f} jobs/s of busy workers, the equal of "
        f"{per_second / points[0].jobs_per_second:.1f} of them as fast as the single one here.\n"
    )
    model = {
        "per_job_us": per_job,
        "per_call_us": per_call,
        "per_idle_worker_us_per_second": per_idle,
        "carries": carries,
    }
    report = {
        "conditions": conditions,
        "points": [asdict(point) for point in points],
        "idle": asdict(idle),
        "model": model,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
