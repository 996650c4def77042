"""A fleet in shadow (DRY_RUN, RULES_DRY_RUN) does everything but the call; what it did stands in no job's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.script import Script
from tests.system.stage import eventually

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_a_worker_in_shadow_calls_nothing_and_its_events_hold_the_jobs_as_received(stage: Stage) -> None:
    worker = stage.worker(DRY_RUN="true")
    jobs = [stage.send(f"c-{number}", fields={"rule_id": "r-7"}) for number in range(20)]
    delayed = stage.send("c-later", countdown=0.3)

    events = stage.wait_events(21)

    assert {event["id"] for event in events} == {*jobs, delayed}
    assert {(event["type"], event["data"]["outcome"]) for event in events} == {
        ("conversation.lock_skipped", "would_lock")
    }
    assert stage.event_of(jobs[0])["data"]["job"] == {"conversation_id": "c-0", "rule_id": "r-7"}
    assert not stage.api.calls()
    (started,) = worker.lines("worker_started")
    assert (started["dry_run"], started["rules_dry_run"]) == (True, None)
    assert "DRY_RUN is set" in stage.lock_worker("status")


def test_after_the_shadow_the_same_ids_are_called_once_and_copies_within_the_shadow_are_dropped(stage: Stage) -> None:
    shadow = stage.worker(RULES_DRY_RUN="r-7")
    for _ in range(2):
        stage.send("c-1", task_id="job-1", fields={"rule_id": "r-7"})
        stage.wait_idle()
    stage.send("c-2", task_id="job-2", fields={"rule_id": "r-8"})
    stage.wait_events(2)
    assert stage.counters()["deduplicated"] == 1
    assert shadow.stop() == 0

    stage.worker()
    for job in ("job-1", "job-2", "job-1"):
        stage.send(f"c-{job[-1]}", task_id=job, fields={"rule_id": "r-7"})

    eventually(lambda: stage.counters().get("deduplicated") == 3, "both copies are dropped")
    ended = [(event["data"]["job_id"], event["data"]["outcome"]) for event in stage.wait_events(3)]
    assert ended == [("job-1", "would_lock"), ("job-2", "locked"), ("job-1", "locked")]
    assert [call.conversation_id for call in stage.api.calls()] == ["c-2", "c-1"]
    assert len({event["id"] for event in stage.events()}) == 3


def test_a_job_that_a_killed_worker_in_shadow_held_is_a_dry_run_in_its_next_delivery_too(stage: Stage) -> None:
    stage.api.script = Script()
    settings = {"DRY_RUN": "true", "LEASE_SECONDS": 2.5, "ATTEMPT_TIMEOUT_SECONDS": 2}
    first = stage.warm_up(stage.worker(**settings))
    jobs = {stage.send(f"c-{number}") for number in range(300)}
    first.kill()

    stage.worker(**settings)

    events = stage.wait_events(300)
    assert {event["id"] for event in events} == jobs
    assert {event["data"]["outcome"] for event in events} == {"would_lock"}
    assert not stage.api.calls()
    stage.wait_idle()
