"""The API fails, or asks for less: the job is tried again, and who is to blame decides whether that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.faults import Respond
from sandbox.script import Quota, Rule, Script

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_a_failed_call_is_tried_again_under_the_same_key(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=500), first_calls=2),))
    stage.worker()

    job = stage.send("c-42")

    event = stage.event_of(job)
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 3)
    assert [call.answer for call in stage.api.calls()] == ["500", "500", "200"]
    assert {call.idempotency_key for call in stage.api.calls()} == {job}


def test_an_api_that_takes_only_so_many_calls_a_second_costs_no_job_an_attempt(stage: Stage) -> None:
    stage.api.script = Script(quota=Quota(calls=10, retry_after="1"))
    stage.worker(MAX_ATTEMPTS=1)

    for number in range(20):
        stage.send(f"c-{number}")

    assert {(event["data"]["outcome"], event["data"]["attempts"]) for event in stage.wait_events(20)} == {("locked", 1)}
