"""The sum of ``lock-worker audit`` is right at every moment, whatever workers do and however they die."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import redis

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.cli.terminal import Terminal
from tests.system.stage import RESULTS, eventually
from worker.cli.audit.law import breaches, law_of
from worker.cli.audit.records import check_records
from worker.cli.audit.snapshot import read_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.stage import Stage, WorkerProcess

QUICK = {"LEASE_SECONDS": 1.5, "ATTEMPT_TIMEOUT_SECONDS": 1.2, "CONCURRENCY": 20, "MAX_ATTEMPTS": 3}


class Auditor:
    """Adds up again and again, beside everything else."""

    def __init__(self, stage: Stage) -> None:
        self.sums = 0
        self.wrong: list[str] = []
        self.places: set[str] = set()
        self._stage = stage
        self._is_over = Event()
        self._thread = Thread(target=self._run)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            self._thread.join()

    def _run(self) -> None:
        keys = self._stage.keys
        with redis.Redis.from_url(self._stage.redis_url) as client:
            while not self._is_over.is_set():
                snapshot = read_snapshot(client, keys, keys)
                law = law_of(snapshot)
                self.wrong += [breach.text for breach in breaches(law, snapshot)]
                self.wrong += check_records(client, keys).missing
                self.places |= {name for name, count in law.terms.items() if count}
                self.sums += 1


def send_of_all_kinds(stage: Stage, batch: int) -> None:
    for number in range(25):
        name = f"{batch}-{number}"
        job = stage.send(f"good-{name}")
        stage.send(f"good-{name}", task_id=job)
        stage.send(f"flaky-{name}")
        stage.send(f"later-{name}", countdown=0.2)
        stage.send(f"dry-{name}", fields={"dry_run": True})
        stage.send(f"good-{name}", fields={"nonsense": 1})
        stage.send(f"good-other-{name}", task_id=job)


def wait_for_some_ends(stage: Stage) -> None:
    before = stage.redis.xlen(RESULTS)
    eventually(lambda: stage.redis.xlen(RESULTS) > before + 5, "some jobs that ended")


def kill_with_jobs(stage: Stage, worker: WorkerProcess) -> None:
    """Kill a worker at a moment when it has jobs in flight."""
    name = f"-{worker.process.pid}-".encode()

    def stands_with_jobs() -> bool:
        worker.process.send_signal(signal.SIGSTOP)
        # What it sent before it stood still is done then, such as the end of all its jobs: Redis reads 16 KiB a turn.
        for _ in range(50):
            stage.redis.ping()
        records = [stage.keys.record_prefix + ref.decode() for ref in stage.redis.zrange(stage.keys.leases, 0, -1)]
        # The lease token names the worker that has the job; a ref, the one that had it first.
        if any(name in (stage.redis.hget(record, "lease_token") or b"") for record in records):
            return True
        worker.process.send_signal(signal.SIGCONT)
        return False

    eventually(stands_with_jobs, "jobs in flight")
    worker.kill()


def test_it_adds_up_all_the_time_while_workers_are_killed_stopped_and_started(stage: Stage) -> None:
    stage.api.script = Script(
        rules=(
            Rule(ids="flaky-*", first_calls=1, then=Respond(status=500, headers={"Retry-After": "1"})),
            Rule(then=Delay(ms=15)),
        )
    )
    auditor = Auditor(stage)
    workers = [stage.worker(**QUICK) for _ in range(2)]
    with auditor.at_work():
        for batch in range(4):
            send_of_all_kinds(stage, batch)
            wait_for_some_ends(stage)
            if batch % 2:
                assert workers[0].stop() == 0
            else:
                kill_with_jobs(stage, workers[0])
            workers = [workers[1], stage.worker(**QUICK)]
        eventually(lambda: stage.jobs_left() == 0, "the end of all jobs", seconds=60)

    assert auditor.wrong == []
    assert auditor.sums > 50
    assert {"finished", "duplicates_dropped", "in_flight", "delayed"} <= auditor.places
    assert stage.counters().get("crashes", 0) > 0
    ended = Terminal({"REDIS_URL": stage.redis_url}, stage.folder).run("audit", "--json")
    (queue,) = json.loads(ended.stdout)["queues"]
    assert (ended.returncode, queue["taken"], queue["missing"]) == (0, 4 * 25 * 7, 0)
