"""Workers that die or stall: every job still ends in exactly one event, and only the guilty job is blamed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Delay
from sandbox.script import Rule, Script
from tests.system.stage import TASK, Stage, eventually

if TYPE_CHECKING:
    from sandbox.call_log import Call

SLOW = Script(rules=(Rule(ids="slow*", then=Delay(ms=700)),))
#: Short leases, so that a test need not wait long for one to be over.
QUICK = {"LEASE_SECONDS": 1.5, "ATTEMPT_TIMEOUT_SECONDS": 1.4}


def calls_of(stage: Stage, conversation: str) -> list[Call]:
    return [call for call in stage.api.calls() if call.conversation_id == conversation]


def test_the_jobs_of_a_killed_worker_are_ended_by_the_next_with_one_event_each(stage: Stage) -> None:
    stage.api.script = SLOW
    first = stage.warm_up(stage.worker(CONCURRENCY=10, **QUICK))
    jobs = {stage.send(f"slow-{number}") for number in range(20)}
    eventually(lambda: len(stage.api.calls()) >= 10, "ten calls")

    first.process.kill()
    stage.api.script = Script()
    second = stage.worker(**QUICK)

    events = stage.wait_events(20)
    assert {event["id"] for event in events} == jobs
    assert {event["data"]["outcome"] for event in events} == {"locked"}
    stage.wait_idle()
    counters = stage.counters()
    assert (counters["crashes"], counters["workers_lost"]) == (10, 1)
    told = second.lines("jobs_recovered")
    assert sum(line["jobs"] for line in told) == 10
    (name,) = {name for line in told for name in line["jobs_by_worker"]}
    assert f"-{first.process.pid}-" in name
    named = {job for line in told for job in line["job_ids"]}
    assert named
    assert named <= jobs
    assert counters["finished"] == 20
    assert len(stage.api.calls()) == 30


def test_a_stalled_worker_publishes_and_calls_nothing_that_others_took_over(stage: Stage) -> None:
    stage.api.script = SLOW
    stalled = stage.warm_up(stage.worker("-n", "stalled@test", **QUICK))
    finished = len(stalled.lines("job_finished"))
    jobs = {stage.send(f"slow-{number}") for number in range(5)}
    eventually(lambda: len(stage.api.calls()) >= 5, "five calls")

    stalled.process.send_signal(signal.SIGSTOP)
    stage.worker("-n", "other@test", **QUICK)
    stage.wait_events(5)
    stalled.process.send_signal(signal.SIGCONT)

    def noticed() -> int:
        return len(stalled.lines("lease_lost")) + len(stalled.lines("job_settled_elsewhere"))

    eventually(lambda: noticed() == 5, "five jobs that were taken over")
    assert {event["id"] for event in stage.wait_events(5)} == jobs
    assert stage.counters()["crashes"] == 5
    assert len(stage.api.calls()) == 10
    assert len(stalled.lines("job_finished")) == finished
    # It is not offended, and works on.
    later = {stage.send(f"c-{number}") for number in range(30)}
    assert {event["id"] for event in stage.wait_events(35)} == jobs | later
    stage.wait_idle()


@pytest.mark.parametrize(("deliveries", "deaths"), [(1, 2), (2, 2), (3, 3)])
def test_a_job_that_kills_its_workers_is_ended_as_poisoned_and_its_neighbours_are_locked(
    stage: Stage, deliveries: int, deaths: int
) -> None:
    """One death does not tell on which of a worker's jobs it died, so there are two at least."""
    stage.api.script = Script(rules=(Rule(then=Delay(ms=100)),))
    healthy = {stage.send(f"c-{number}") for number in range(10)}
    killer = stage.send("c-killer", task_id="killer-1")
    healthy |= {stage.send(f"d-{number}") for number in range(30)}
    include = ("--include", "tests.system.killer")
    settings = {"CONCURRENCY": 20, "MAX_DELIVERIES": deliveries, **QUICK}
    workers = [stage.start(*include, **settings)]

    def is_over() -> bool:
        if workers[-1].process.poll() is not None:
            workers.append(stage.start(*include, **settings))
        return int(stage.redis.xlen("moderation.results")) >= 41

    eventually(is_over, "an event for every job", 60)

    outcomes = {event["id"]: event["data"]["outcome"] for event in stage.wait_events(41)}
    assert outcomes == {killer: "poisoned"} | dict.fromkeys(healthy, "locked")
    (dead,) = stage.dead_letters()
    assert (dead[0]["id"], dead[0]["data"]["error"]["type"]) == (killer, "poisoned")
    assert TASK.encode() in dead[1]
    assert [worker.process.poll() for worker in workers] == [*[137] * deaths, None]
    assert calls_of(stage, "c-killer") == []
    stage.wait_idle()
