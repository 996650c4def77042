"""A worker dies with its jobs: nothing is lost, and nothing is told twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.faults import Delay
from sandbox.script import Rule, Script
from tests.system.stage import eventually

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_the_job_of_a_killed_worker_is_taken_again_and_reported_once(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Delay(ms=60_000), nth_call=1),))
    short_lease = {"LEASE_SECONDS": 1.5, "ATTEMPT_TIMEOUT_SECONDS": 1.4}
    first = stage.worker(**short_lease)
    job = stage.send("c-42")
    eventually(stage.api.calls, "the first worker's call")

    first.kill()
    stage.worker(**short_lease)

    (event,) = stage.wait_events(1)
    assert (event["data"]["job_id"], event["data"]["outcome"]) == (job, "locked")
    assert [call.idempotency_key for call in stage.api.calls()] == [job, job]
    stage.wait_idle()
