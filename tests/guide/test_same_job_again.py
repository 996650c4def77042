"""A producer that sends a job twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.stage import eventually

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_a_job_sent_twice_is_called_and_reported_once(stage: Stage) -> None:
    stage.worker()
    stage.send("c-42", task_id="job-1")
    stage.wait_events(1)

    stage.send("c-42", task_id="job-1")

    eventually(lambda: stage.counters().get("deduplicated") == 1, "the duplicate is dropped")
    assert len(stage.wait_events(1)) == len(stage.api.calls()) == 1
