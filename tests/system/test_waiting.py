"""A fleet with nothing to do: it costs Redis next to nothing, wakes one worker a job, and misses no job."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.redis_server import RedisServer
from tests.system.stage import DEAD, QUEUE, RESULTS, Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary

WORKERS = 4
#: How long a worker waits on the list of new jobs before it looks at the others, in seconds.
WAIT_SECONDS = 0.5
#: What the slowest machine may need beside the time that a test is about.
SLACK_SECONDS = 2.0
#: All commands that workers send when they have nothing to do, but not those that their scripts run.
SENT = ("blmove", "eval", "evalsha", "publish", "ping", "psubscribe")


@pytest.fixture(scope="module")
def running(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path_factory.mktemp("waiting")) as stage:
        workers = [stage.start("-n", f"lock-{number}@test") for number in range(WORKERS)]
        for worker in workers:
            worker.wait_ready()
        yield stage


@pytest.fixture
def fleet(running: Stage) -> Stage:
    """Waiting workers, and nothing left of the test before."""
    running.redis.delete(RESULTS, DEAD, QUEUE)
    running.wait_idle()
    running.redis.config_resetstat()
    return running


def calls(stage: Stage, *commands: str) -> int:
    stats: dict[str, Any] = stage.redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{command}", {}).get("calls", 0)) for command in commands)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def send_one_after_the_other(fleet: Stage, jobs: int) -> None:
    """Send each job when the one before it has ended, so that each finds a fleet that waits."""
    for number in range(jobs):
        fleet.send(f"c-{number}")
        fleet.wait_events(number + 1)


def test_a_job_wakes_one_worker_and_not_the_fleet(fleet: Stage) -> None:
    jobs = 40
    began = time.monotonic()

    send_one_after_the_other(fleet, jobs)

    waits_that_ended_by_themselves = WORKERS * (time.monotonic() - began) / WAIT_SECONDS
    assert calls(fleet, "blmove") <= 2 * jobs + waits_that_ended_by_themselves + WORKERS


def test_a_job_that_wakes_a_worker_is_taken_claimed_and_completed_by_one_script_call_each(fleet: Stage) -> None:
    jobs = 40
    began = time.monotonic()

    send_one_after_the_other(fleet, jobs)

    # what each worker does beside: promote, recover, and a take after a wait
    rounds = WORKERS * ((time.monotonic() - began) / WAIT_SECONDS + 1)
    assert calls(fleet, "eval", "evalsha") <= 3 * jobs + 3 * rounds


def test_an_idle_worker_sends_less_than_twelve_commands_a_second(fleet: Stage) -> None:
    # Long enough for what is sent every few seconds: the worker's own state, and the look at the fleet's.
    eventually(lambda: calls(fleet, "blmove") >= 12 * WORKERS, "six seconds of waiting")

    seconds = calls(fleet, "blmove") * WAIT_SECONDS / WORKERS
    assert calls(fleet, *SENT) / WORKERS / seconds < 12


@pytest.mark.parametrize("priority", [3, 6, 9])
def test_a_job_of_low_priority_reaches_an_idle_worker_soon(fleet: Stage, priority: int) -> None:
    sent_at = time.time()

    event = fleet.event_of(fleet.send(priority=priority))

    assert moment(event["data"]["received_at"]) - sent_at < WAIT_SECONDS + SLACK_SECONDS


def test_a_delayed_job_reaches_an_idle_worker_as_soon_as_it_is_due(fleet: Stage) -> None:
    due = time.time() + 1

    event = fleet.event_of(fleet.send(countdown=1))

    assert due <= moment(event["data"]["finished_at"]) < due + WAIT_SECONDS + SLACK_SECONDS


def test_a_message_whose_woken_worker_died_is_taken_by_the_next_one(fleet: Stage) -> None:
    """The wake-up has moved it to a list of ours, and nobody came to take it from there."""
    fleet.send("c-1", queue="elsewhere", task_id="woke-a-dead-one")
    fleet.redis.lmove("elsewhere", fleet.keys.arrived)

    assert fleet.event_of("woke-a-dead-one")["data"]["outcome"] == "locked"


def test_a_queue_that_is_no_list_is_reported_at_a_bounded_rate_until_it_is_mended(fleet: Stage) -> None:
    def lines_of_each() -> list[list[dict[str, Any]]]:
        return [worker.lines("redis_refuses") for worker in fleet.workers]

    assert lines_of_each() == [[]] * WORKERS
    fleet.redis.set(QUEUE, "no list")

    eventually(lambda: all(lines_of_each()), "a line of each worker")
    told_at = time.monotonic()
    eventually(lambda: time.monotonic() > told_at + 2, "some more refusals")

    for (line,) in lines_of_each():
        assert "WRONGTYPE" in line["error"]
        assert line["queue"] == QUEUE
    assert calls(fleet, *SENT) / WORKERS < 60
    fleet.redis.delete(QUEUE)
    assert fleet.event_of(fleet.send())["data"]["outcome"] == "locked"


def test_the_trouble_of_one_queue_does_not_keep_a_worker_from_another(fleet: Stage) -> None:
    name = "lock-0@test"
    fleet.producer.control.add_consumer("another", destination=[name], reply=True, timeout=10)
    fleet.redis.set(QUEUE, "no list")

    jobs = {fleet.send(f"c-{number}", queue="another") for number in range(5)}

    assert {event["id"] for event in fleet.wait_events(5)} == jobs
    assert fleet.redis.type(QUEUE) == b"string"
    fleet.producer.control.cancel_consumer("another", destination=[name], reply=True, timeout=10)
    fleet.redis.delete(QUEUE)
    assert fleet.event_of(fleet.send())["data"]["outcome"] == "locked"
