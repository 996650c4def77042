"""A job that failed, replayed by hand once the API works again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.stage import Stage


@pytest.mark.parametrize(("status", "outcome"), [(500, "exhausted"), (403, "refused")])
def test_a_replayed_job_is_locked_and_its_event_names_the_old_one(
    stage: Stage, tmp_path: Path, status: int, outcome: str
) -> None:
    # given a job that failed because of the API
    stage.worker(MAX_ATTEMPTS=1)
    stage.api.script = Script(rules=(Rule(then=Respond(status=status)),))
    job = stage.send("c-1", fields={"rule_id": "spam-7", "metadata": {"score": 0.97}})
    failed = stage.event_of(job)
    assert failed["data"]["outcome"] == outcome
    stage.api.script = Script()

    # when it is replayed
    shell = Terminal({"REDIS_URL": stage.environment()["REDIS_URL"]}, tmp_path)
    ended = shell.run("replay", "--outcome", outcome)

    # then a new job does what the old one could not
    assert ended.returncode == 0, ended.stderr
    (new,) = ended.stdout.split()
    event = stage.event_of(new)
    assert event["data"]["outcome"] == "locked"
    assert event["data"]["replay_of"] == job
    assert event["data"]["job"] == failed["data"]["job"]
    assert {call.idempotency_key for call in stage.api.calls()} == {job, new}
    assert stage.dead_letters() == []
    stage.wait_idle()
