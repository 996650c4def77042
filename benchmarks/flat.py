"""Whether a worker's memory stays flat: one worker, 1,000,000 jobs, its resident size every few thousand of them.

    python -m benchmarks.flat [--jobs 1000000]

The API answers at once, so that the worker is busy all the time: about ten minutes on a quiet machine. The first tenth
(at most 50,000 jobs) warms caches and allocators up; from there on the growth is judged.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import bulk
from benchmarks.processes import resident_mib
from benchmarks.results import machine
from benchmarks.rows import ROWS
from benchmarks.server import version
from benchmarks.stage import Stage

HERE = Path(__file__).parent
LIMIT_MIB = 5.0
_LOOK_SECONDS = 2.0
_STALL_SECONDS = 60.0


def main() -> None:
    """Measure, and write ``results/flat.json``; the exit status is 1 if the memory grew by more than 5 MiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "flat.json")
    options = parser.parse_args()
    logs = HERE / ".logs"
    logs.mkdir(exist_ok=True)
    conditions = {"machine": machine(), "redis": version()}
    began = time.monotonic()
    with Stage([0], 7, logs) as stage, stage.fresh_server() as client:
        bulk.fill(client, stage.server_url, options.jobs)
        with stage.worker(ROWS[0], 0) as worker:
            samples: list[tuple[int, float]] = []
            changed_at = time.monotonic()
            while not samples or samples[-1][0] < options.jobs:
                time.sleep(_LOOK_SECONDS)
                done = int(client.hget(f"lw:1:{bulk.QUEUE}:counters", "finished") or 0)
                if not samples or done > samples[-1][0]:
                    changed_at = time.monotonic()
                samples.append((done, round(resident_mib(worker.pid), 2)))
                sys.stdout.write(f"{done:9,} jobs {samples[-1][1]:7.1f} MiB\n")
                sys.stdout.flush()
                if not worker.is_running or time.monotonic() - changed_at > _STALL_SECONDS:
                    sys.exit(f"the worker ended or stands still:\n{worker.tail()}")
    warm = min(50_000, options.jobs // 10)
    judged = [mib for done, mib in samples if done >= warm]
    growth = max(judged) - judged[0]
    report = {
        "conditions": conditions,
        "jobs": options.jobs,
        "seconds": round(time.monotonic() - began),
        "warm_up_jobs": warm,
        "growth_mib": round(growth, 2),
        "samples": samples,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report) + "\n")
    sys.stdout.write(f"From {warm:,} to {options.jobs:,} jobs the worker grew by {growth:.1f} MiB at most.\n")
    sys.exit(growth > LIMIT_MIB)


if __name__ == "__main__":
    main()
