"""A worker that has no file descriptor left says so, loses no job and blames nobody else."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.faults import Delay
from sandbox.script import Rule, Script
from tests.system.stage import eventually

if TYPE_CHECKING:
    from tests.system.stage import Stage, WorkerProcess

JOBS = 60
SLOTS = 40
SPARE = 8


def limit_open_files(worker: WorkerProcess, spare: int) -> None:
    """Leave a running worker so many file descriptors beside those that it has."""
    pid = worker.process.pid
    in_use = max(int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir())
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 1 + spare, hard))


def test_a_worker_without_descriptors_for_all_its_slots_does_all_jobs_over_those_it_has(stage: Stage) -> None:
    worker = stage.worker(CONCURRENCY=SLOTS)
    jobs = [stage.send("first")]
    stage.wait_events(1)  # its connections to Redis are open
    limit_open_files(worker, SPARE)
    stage.api.script = Script(rules=(Rule(then=Delay(ms=500)),))

    jobs += [stage.send(f"c-{number}") for number in range(JOBS)]
    eventually(lambda: worker.lines("no_resources"), "a line that says what is lacking")
    events = stage.wait_events(len(jobs), seconds=60)

    assert {event["data"]["job_id"] for event in events} == set(jobs)
    assert {(event["data"]["outcome"], event["data"]["attempts"]) for event in events} == {("locked", 1)}
    (line,) = worker.lines("no_resources")
    assert "ulimit -n" in line["problem"]
    assert {line["reason"] for line in worker.lines("job_retry")} == {"internal"}
    assert worker.lines("breaker_opened") == []
