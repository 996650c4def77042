"""Jobs that only a newer version can read: this version says so, leaves them alone, and loses none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tests.cli.terminal import Terminal
from tests.system.stage import QUEUE, Stage, eventually
from worker.broker.keys import LAYOUT

if TYPE_CHECKING:
    from pathlib import Path

NEWER = LAYOUT + 1


def note_newer_version(stage: Stage) -> None:
    """A worker of version 9.1 worked here."""
    stage.redis.hset(stage.keys.maintenance, "layout", f"{NEWER} 9.1")


def delayed_job(stage: Stage) -> str:
    """A job whose call failed, and that is due after its worker ended: the key of its record."""
    stage.api.script = Script(rules=(Rule(first_calls=5, then=Respond(status=500)),))
    worker = stage.worker(RETRY_BASE_SECONDS=60)
    stage.send("c-1")
    (ref,) = eventually(lambda: stage.redis.zrange(stage.keys.delayed, 0, -1), "a delayed job")
    worker.stop()
    stage.redis.zadd(stage.keys.delayed, {ref: 1})
    return f"{stage.keys.record_prefix}{ref.decode()}"


def test_a_worker_does_not_start_beside_a_layout_that_it_cannot_read_and_names_the_version_to_start(
    stage: Stage,
) -> None:
    note_newer_version(stage)
    stage.send("c-1")

    worker = stage.start()

    assert worker.process.wait(20) == 1
    (line,) = worker.lines("redis_unfit")
    assert f"written by lock-worker 9.1 in layout {NEWER}" in line["problem"]
    assert "Start lock-worker 9.1 again" in line["advice"]
    assert stage.redis.llen(QUEUE) == 1
    assert stage.api.calls() == []
    assert stage.redis.hget(stage.keys.maintenance, "layout") == f"{NEWER} 9.1".encode()


def test_a_worker_that_runs_warns_of_such_a_job_and_the_next_one_that_can_read_it_ends_it(stage: Stage) -> None:
    record = delayed_job(stage)
    stage.redis.hset(record, "layout", NEWER)

    worker = stage.worker()
    (warning,) = eventually(lambda: worker.lines("jobs_need_newer_worker"), "a warning")
    other = stage.send("c-2")

    assert (warning["queue"], warning["jobs"]) == (QUEUE, 1)
    assert "Start a worker of the version that wrote them" in warning["advice"]
    assert stage.outcome_of(other) == "locked"
    assert stage.redis.exists(record)
    stage.redis.hdel(record, "layout")  # what this version can read, as a newer one can what it wrote
    eventually(lambda: len(stage.events()) == 2, "both events")


def test_the_doctor_tells_it_before_a_rollout(stage: Stage, tmp_path: Path) -> None:
    note_newer_version(stage)

    asked = Terminal(stage.environment(), tmp_path).run("doctor", "--json")

    assert asked.returncode == 1
    (check,) = [check for check in json.loads(asked.stdout)["checks"] if check["name"] == "redis_layout"]
    assert check["level"] == "problem"
    assert "written by lock-worker 9.1" in json.dumps(check)
