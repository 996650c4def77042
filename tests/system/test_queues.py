"""A worker with several queues: each is as good as an only one, and idle ones cost little."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.cli.terminal import Terminal
from tests.system.stage import eventually
from worker.broker.keys import Keys
from worker.runtime.queues import MAX_QUEUES

if TYPE_CHECKING:
    from tests.system.stage import Stage

TWENTY = tuple(f"queue-{number}" for number in range(20))


def calls(stage: Stage, *commands: str) -> int:
    """How often the server ran these commands."""
    found = stage.redis.info("commandstats")
    return sum(found.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands)


def until_all_are_waited_for(stage: Stage, count: int) -> None:
    eventually(lambda: stage.redis.info("clients")["blocked_clients"] == count, f"{count} waits")


def test_a_job_is_taken_from_each_of_many_queues(stage: Stage) -> None:
    stage.worker("-Q", ",".join(TWENTY))
    until_all_are_waited_for(stage, 20)

    jobs = {queue: stage.send(queue=queue) for queue in TWENTY}

    assert {event["data"]["job_id"] for event in stage.wait_events(20)} == set(jobs.values())


def test_many_idle_queues_cost_redis_little_more_than_one(stage: Stage) -> None:
    """One queue that is looked at twice a second takes six calls of scripts a second."""
    stage.worker("-Q", ",".join(TWENTY))
    until_all_are_waited_for(stage, 20)
    eventually(lambda: calls(stage, "exists") > 4, "looks at all queues")
    looks, scripts = calls(stage, "exists"), calls(stage, "evalsha", "eval")

    eventually(lambda: calls(stage, "exists") >= looks + 8, "eight looks at all queues")

    assert calls(stage, "evalsha", "eval") - scripts < 8 * 8


def test_what_nobody_can_wait_on_is_found_on_idle_queues_too(stage: Stage) -> None:
    stage.worker("-Q", "a,b,c")
    until_all_are_waited_for(stage, 3)

    urgent = stage.send(queue="c", priority=9)
    later = stage.send(queue="b", countdown=0.2)

    for job in (urgent, later):  # an idle queue's own maintenance comes every ten seconds
        assert stage.event_of(job, seconds=8)["data"]["outcome"] == "locked"


def test_jobs_of_a_dead_worker_come_back_on_idle_queues_too(stage: Stage) -> None:
    keys = Keys("c")
    record = {"raw": b"{}", "first": 1, "lease_token": "of a dead worker"}
    stage.redis.hset(f"{keys.record_prefix}ref", mapping=record)
    stage.redis.zadd(keys.leases, {"ref": 1})

    stage.worker("-Q", "a,b,c", LEASE_SECONDS=3)

    (event,) = stage.wait_events(1)
    assert event["data"]["outcome"] == "rejected"


def test_the_commands_know_all_queues_of_a_worker(stage: Stage) -> None:
    terminal = Terminal({"REDIS_URL": stage.redis_url}, stage.folder)
    worker = stage.worker("-n", "lock-1@test", "-Q", "moderation.lock,b")
    until_all_are_waited_for(stage, 2)

    def queues() -> list[tuple[str, list[str]]]:
        found = json.loads(terminal.run("status", "--json").stdout)["queues"]
        return [(each["queue"], each["workers"]) for each in found]

    both = [("moderation.lock", ["lock-1@test"]), ("b", ["lock-1@test"])]
    eventually(lambda: queues() == both, "both queues with their worker")
    worker.stop()
    assert queues() == [("moderation.lock", []), ("b", [])]


def test_a_worker_is_given_ever_more_queues_only_to_a_bound(stage: Stage) -> None:
    name = "lock-1@test"
    stage.worker("-n", name)
    control = stage.producer.control

    def ask(command: str, queue: str) -> dict[str, str]:
        answers: Any = control.broadcast(command, {"queue": queue}, destination=[name], reply=True, timeout=10)
        (answer,) = answers
        return dict(answer[name])

    answers = [ask("add_consumer", f"queue-{number}") for number in range(MAX_QUEUES + 5)]

    assert ["ok" in answer for answer in answers] == [True] * (MAX_QUEUES - 1) + [False] * 6
    assert "cancel one with cancel_consumer" in answers[-1]["error"]
    until_all_are_waited_for(stage, MAX_QUEUES)
    ask("cancel_consumer", "queue-0")
    until_all_are_waited_for(stage, MAX_QUEUES - 1)
    eventually(lambda: "ok" in ask("add_consumer", "another"), "room for another queue")
    job = stage.send(queue="another")
    assert stage.event_of(job)["data"]["outcome"] == "locked"
