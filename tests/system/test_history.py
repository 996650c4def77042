"""A job's history: whichever workers had it, its event tells the calls and the delays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.system.answers.scripted import answer_in_turn, make_due, wait_delayed
from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from tests.system.stage import WorkerProcess

WAIT_SECONDS = 60


def history_of(event: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (entry["what"], entry["status"], entry["error"], entry["reason"]) for entry in event["data"].get("history", [])
    ]


def stopped(worker: WorkerProcess) -> None:
    assert worker.stop() == 0, worker.log


def test_the_event_of_the_second_worker_tells_the_calls_of_the_first(stage: Stage) -> None:
    answer_in_turn(stage, "c-1", Respond(status=500, headers={"Retry-After": str(WAIT_SECONDS)}))
    first = stage.worker()
    job = stage.send("c-1")
    wait_delayed(stage)
    first.kill()

    stage.worker()
    make_due(stage)
    event = stage.event_of(job)

    assert event["data"]["outcome"] == "locked"
    assert history_of(event) == [("call", 500, "server_error", None), ("call", 200, None, None)]
    failed, locked = event["data"]["history"]
    assert failed["wait_seconds"] >= WAIT_SECONDS
    assert locked["wait_seconds"] is None
    assert event["data"]["received_at"] < failed["time"] < locked["time"] <= event["data"]["finished_at"]


def test_a_call_that_a_stopping_worker_gave_up_is_told_too(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(id="c-1", nth_call=1, then=Delay(ms=30_000)),))
    first = stage.worker(SHUTDOWN_SECONDS=1, ATTEMPT_TIMEOUT_SECONDS=60, LEASE_SECONDS=90)
    job = stage.send("c-1")
    eventually(stage.api.calls, "the call")
    stopped(first)

    stage.worker()

    event = stage.event_of(job)
    assert event["data"]["attempts"] == 2
    assert history_of(event) == [("call", None, None, "interrupted"), ("call", 200, None, None)]


def test_the_wait_for_an_eta_is_told(stage: Stage) -> None:
    stage.worker()
    job = stage.send("c-1", countdown=1)

    event = stage.event_of(job)

    assert history_of(event) == [("delay", None, None, "eta"), ("call", 200, None, None)]
    assert 0 < event["data"]["history"][0]["wait_seconds"] <= 1


def test_a_job_that_is_locked_at_once_has_no_history_and_stores_none(stage: Stage) -> None:
    stage.worker()

    assert "history" not in stage.event_of(stage.send("c-1"))["data"]
