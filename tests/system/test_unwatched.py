"""What Celery knows of jobs while nothing watches them (no events): its answers are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Delay
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.remote_control import ask
from tests.system.stage import DEAD, RESULTS, TASK, Stage, eventually, monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary

NAME = "unwatched@test"
SCRIPT = Script(rules=(Rule(ids="slow*", then=Delay(ms=1500)),))


@pytest.fixture(scope="module")
def running(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path_factory.mktemp("unwatched")) as stage:
        stage.api.script = SCRIPT
        stage.worker("-n", NAME, CONCURRENCY=5, ATTEMPT_TIMEOUT_SECONDS=4)
        yield stage


@pytest.fixture
def stage(running: Stage) -> Stage:
    running.wait_idle()
    running.redis.delete(RESULTS, DEAD)
    running.api.reset()
    return running


def total(stage: Stage) -> int:
    return int(ask(stage, NAME, "stats")["total"].get(TASK, 0))


def test_who_inspects_the_worker_sees_the_jobs_that_run_and_none_that_are_over(stage: Stage) -> None:
    stage.event_of(stage.send("c-1"))
    job = stage.send("slow-1")
    eventually(stage.api.calls, "the call")

    active = eventually(lambda: ask(stage, NAME, "active"), "the job in the answer")
    assert [(request["id"], request["kwargs"]) for request in active] == [(job, {"conversation_id": "slow-1"})]
    assert ask(stage, NAME, "query_task", job)[job][0] == "active"

    stage.event_of(job)
    assert eventually(lambda: ask(stage, NAME, "active") == [], "nothing active any more")
    assert ask(stage, NAME, "query_task", job) == {}


def test_each_job_is_counted_once_whether_it_was_seen_or_not(stage: Stage) -> None:
    before = total(stage)
    for number in range(20):
        stage.send(f"c-{number}")
    seen = stage.send("slow-1")
    eventually(lambda: seen in [request["id"] for request in ask(stage, NAME, "active")], "the job that is seen")
    stage.wait_events(21)

    assert eventually(lambda: total(stage) == before + 21, "all counted")


def test_a_job_can_be_terminated_that_celery_was_never_shown(stage: Stage) -> None:
    job = stage.send("slow-1")
    eventually(stage.api.calls, "the call")

    stage.producer.control.revoke(job, terminate=True, destination=[NAME], reply=True, timeout=10)

    event = stage.event_of(job)
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "revoked")
    assert event["data"]["attempts"] == 1
    assert "the conversation may be locked" in event["data"]["error"]["detail"]
    stage.wait_idle()
    assert len(stage.wait_events(1)) == 1
    assert len(stage.api.calls()) == 1
    assert ask(stage, NAME, "active") == []


def test_a_heartbeat_tells_how_many_jobs_were_done(stage: Stage) -> None:
    jobs = total(stage) + 5
    for number in range(5):
        stage.send(f"c-{number}")
    stage.wait_events(5)

    with monitor(stage.producer) as heard:
        heartbeats = eventually(
            lambda: [event for event in list(heard) if event["type"] == "worker-heartbeat"], "a heartbeat"
        )

    assert heartbeats[-1]["processed"] == jobs
