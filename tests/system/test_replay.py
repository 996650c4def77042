"""A job that failed, replayed by hand once the API works again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.stage import Stage


FACE = "\N{GRINNING FACE}"
#: A job at every limit, of characters that take the most bytes in a message of stock Celery: it has over 100 kB.
LARGEST = {
    "reason": FACE * 1000, "rule_id": FACE * 128, "policies": [FACE * 128] * 20, "actor": FACE * 128,
    "correlation_id": FACE * 128, "metadata": {"text": "\N{GREEK SMALL LETTER OMEGA}" * 4000},
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "outcome", "fields"),
    [(500, "exhausted", {"rule_id": "spam-7", "metadata": {"score": 0.97}}), (403, "refused", LARGEST)],
    ids=["exhausted", "refused, the largest job"],
)
def test_a_replayed_job_is_locked_and_its_event_names_the_old_one(
    stage: Stage, tmp_path: Path, status: int, outcome: str, fields: dict[str, Any]
) -> None:
    # given a job that failed because of the API
    stage.worker(MAX_ATTEMPTS=1)
    stage.api.script = Script(rules=(Rule(then=Respond(status=status)),))
    job = stage.send("c-1", fields=fields)
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
