"""Celery's own life around a job: monitors, remote control, and its options mean what they mean in Celery."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.remote_control import ask
from tests.system.stage import DEAD, QUEUE, RESULTS, TASK, TOKEN, Stage, eventually, monitor
from worker.broker.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary

PASSWORD = "a-redis-password"
NAME = "lock-1@test"
CONCURRENCY = 5
SIGNALS = "test:signals"
RECORDER = ("--include", "tests.system.recorder")

SCRIPT = Script(
    rules=(
        Rule(ids="missing*", then=Respond(status=404)),
        Rule(ids="later*", first_calls=1, then=Respond(status=500, headers={"Retry-After": "2"})),
        Rule(ids="slow*", then=Delay(ms=1500)),
        Rule(ids="brief*", then=Delay(ms=200)),
    )
)


@pytest.fixture(scope="module")
def running(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker for all tests here, with everything that Celery tells switched on."""
    with (
        RedisServer(server_binary, {"requirepass": PASSWORD}) as server,
        Stage(server.url, tmp_path_factory.mktemp("life")) as stage,
    ):
        stage.api.script = SCRIPT
        stage.worker(
            "-E", "-n", NAME, *RECORDER, CONCURRENCY=CONCURRENCY, ATTEMPT_TIMEOUT_SECONDS=4, SIGNALS_KEY=SIGNALS
        )
        yield stage


@pytest.fixture
def life(running: Stage) -> Stage:
    """The same, with nothing left of the test before."""
    running.wait_idle()
    running.redis.delete(RESULTS, DEAD, SIGNALS)
    running.api.reset()
    return running


def story(heard: list[dict[str, Any]], job: str) -> list[str]:
    """What a monitor heard of a job."""
    return [event["type"] for event in list(heard) if event.get("uuid") == job]


def wait_story(heard: list[dict[str, Any]], job: str, last: str) -> list[str]:
    eventually(lambda: last in story(heard, job), f"the event {last}")
    return story(heard, job)


def test_no_task_signal_fires_for_a_job_whatever_becomes_of_it(life: Stage) -> None:
    """Tracers hang on these signals, and would make one trace of jobs that run beside each other."""
    assert ask(life, NAME, "_request", "monitoring")["listens"]
    life.producer.control.revoke("revoked-quietly", destination=[NAME], reply=True, timeout=10)
    terminated = life.send("slow-1")
    eventually(life.api.calls, "the call")
    life.producer.control.revoke(terminated, terminate=True, destination=[NAME], reply=True, timeout=10)
    for conversation in ("c-1", "missing-1", "later-1", ""):
        life.send(conversation)
    life.send("c-1", task_id="revoked-quietly")
    life.send("c-1", fields={"dry_run": True})
    life.wait_events(7)

    assert life.redis.lrange(SIGNALS, 0, -1) == []


def test_while_the_event_cannot_be_published_nobody_is_notified_of_a_success(life: Stage) -> None:
    with monitor(life.producer) as heard:
        life.redis.set(RESULTS, "no stream")
        job = life.send("c-1")
        life_log = life.workers[0]
        eventually(lambda: life_log.lines("redis_refuses"), "an attempt to publish")

        assert wait_story(heard, job, "task-started") == ["task-received", "task-started"]
        assert [request["id"] for request in ask(life, NAME, "active")] == [job]
        life.redis.delete(RESULTS)
        assert wait_story(heard, job, "task-succeeded") == ["task-received", "task-started", "task-succeeded"]
        assert [event["id"] for event in life.events()] == [job]


def test_monitors_hear_of_each_step(life: Stage) -> None:
    with monitor(life.producer) as heard:
        jobs = {conversation: life.send(conversation) for conversation in ("c-1", "missing-1", "later-1")}
        life.wait_events(3)
        locked = wait_story(heard, jobs["c-1"], "task-succeeded")
        failed = wait_story(heard, jobs["missing-1"], "task-failed")
        retried = wait_story(heard, jobs["later-1"], "task-succeeded")

    assert locked == ["task-received", "task-started", "task-succeeded"]
    assert failed == ["task-received", "task-started", "task-failed"]
    assert retried == ["task-received", "task-started", "task-retried", *locked]
    received = [event for event in heard if event["type"] == "task-received" and event["uuid"] == jobs["later-1"]]
    assert [(event["name"], event["retries"]) for event in received] == [(TASK, 0), (TASK, 1)]
    by_type = {event["type"]: event for event in heard}
    assert by_type["task-succeeded"]["result"] == "locked"
    assert by_type["task-failed"]["exception"].startswith("LockFailedError('refused: ")
    assert "server_error" in by_type["task-retried"]["exception"]


def test_a_stock_app_can_inspect_the_worker(life: Stage) -> None:
    job = life.send("slow-1")
    eventually(life.api.calls, "the call")

    (active,) = ask(life, NAME, "active")
    assert (active["id"], active["name"], active["kwargs"]) == (job, TASK, {"conversation_id": "slow-1"})
    assert isinstance(active["worker_pid"], int)
    assert ask(life, NAME, "query_task", job)[job][0] == "active"
    assert [request["id"] for request in ask(life, NAME, "reserved")] == []
    assert ask(life, NAME, "scheduled") == []
    assert ask(life, NAME, "ping") == {"ok": "pong"}
    assert ask(life, NAME, "registered") == [TASK]
    assert [queue["name"] for queue in ask(life, NAME, "active_queues")] == [QUEUE]
    stats = ask(life, NAME, "stats")
    assert stats["pool"]["max-concurrency"] == CONCURRENCY
    assert stats["total"][TASK] >= 1
    assert stats["broker"]["hostname"] == "127.0.0.1"


def test_no_secret_is_told_to_who_inspects(life: Stage) -> None:
    for question in ("conf", "stats", "report", "active_queues"):
        answer = json.dumps(ask(life, NAME, question))
        assert TOKEN not in answer, question
        assert PASSWORD not in answer, question
    assert ask(life, NAME, "conf")["task_default_queue"] == QUEUE


def test_the_celery_command_can_inspect_the_worker(life: Stage) -> None:
    command = [sys.executable, "-m", "celery", "-A", "worker", "inspect", "--json", "--destination", NAME]
    environment = {**life.environment(), "PATH": ""}

    asked = subprocess.run(
        [*command, "--timeout", "10", "conf"], env=environment, capture_output=True, check=True, timeout=30, text=True
    )

    assert json.loads(asked.stdout)[NAME]["worker_concurrency"] == CONCURRENCY
    for secret in (TOKEN, PASSWORD):
        assert secret not in asked.stdout + asked.stderr


def test_a_job_revoked_before_it_is_called_ends_as_revoked_without_a_call(life: Stage) -> None:
    life.producer.control.revoke("revoked-1", destination=[NAME], reply=True, timeout=10)

    life.send("c-1", task_id="revoked-1")
    life.send("c-2", task_id="not-revoked")

    event = life.event_of("revoked-1")
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_skipped", "revoked")
    assert event["data"]["attempts"] == 0
    assert life.event_of("not-revoked")["data"]["outcome"] == "locked"
    assert [call.conversation_id for call in life.api.calls()] == ["c-2"]
    assert len(life.wait_events(2)) == 2


def test_a_waiting_job_can_be_revoked(life: Stage) -> None:
    job = life.send("c-1", countdown=1.5)
    eventually(lambda: life.redis.zcard(life.keys.delayed), "a delayed job")

    life.producer.control.revoke(job, destination=[NAME], reply=True, timeout=10)

    assert life.event_of(job)["data"]["outcome"] == "revoked"
    assert life.api.calls() == []


def test_a_terminated_job_is_released_and_ends_as_revoked_with_one_event(life: Stage) -> None:
    with monitor(life.producer) as heard:
        job = life.send("slow-1")
        eventually(life.api.calls, "the call")

        life.producer.control.revoke(job, terminate=True, destination=[NAME], reply=True, timeout=10)

        event = life.event_of(job)
        eventually(lambda: story(heard, job).count("task-revoked") == 2, "both steps of the revoke")
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "revoked")
    assert event["data"]["attempts"] == 1
    assert "the conversation may be locked" in event["data"]["error"]["detail"]
    life.wait_idle()
    assert [letter["data"]["job_id"] for letter, _ in life.dead_letters()] == [job]
    assert len(life.wait_events(1)) == 1
    assert len(life.api.calls()) == 1
    assert ask(life, NAME, "active") == []
    assert [(event["type"], event.get("terminated")) for event in heard if event.get("uuid") == job] == [
        ("task-received", None), ("task-started", None), ("task-revoked", True),
        ("task-received", None), ("task-revoked", False),
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["revoke", "terminate"])
def test_a_job_revoked_while_it_waits_for_its_next_call_has_failed(life: Stage, way: str) -> None:
    job = life.send("later-1")
    eventually(lambda: life.redis.zcard(life.keys.delayed), "a job that waits for its second call")

    life.producer.control.revoke(job, terminate=way == "terminate", destination=[NAME], reply=True, timeout=10)

    event = life.event_of(job)
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "revoked")
    assert event["data"]["attempts"] == 1
    assert len(life.api.calls()) == 1


def test_a_job_revoked_while_it_waits_in_its_slot_is_not_called_again(life: Stage) -> None:
    life.api.script = Script(rules=(Rule(id="failing", then=Respond(status=500, headers={"Retry-After": "1"})),))
    try:
        job = life.send("failing")
        eventually(life.api.calls, "the first call")
        life.producer.control.revoke(job, destination=[NAME], reply=True, timeout=10)
        event = life.event_of(job)
    finally:
        life.api.script = SCRIPT

    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "revoked")
    assert event["data"]["attempts"] == len(life.api.calls())


def test_the_pool_grows_and_shrinks_on_request(life: Stage) -> None:
    control = life.producer.control

    def peak() -> int:
        life.wait_idle()
        life.api.reset()
        seen = int(life.redis.xlen(RESULTS))
        for number in range(12):
            life.send(f"brief-{number}")
        life.wait_events(seen + 12)
        return life.api.stats()["peak_in_flight"]

    assert peak() == CONCURRENCY
    control.pool_shrink(3, destination=[NAME], reply=True, timeout=10)
    assert peak() == CONCURRENCY - 3
    control.pool_grow(3, destination=[NAME], reply=True, timeout=10)
    assert ask(life, NAME, "stats")["pool"]["max-concurrency"] == CONCURRENCY
    assert peak() == CONCURRENCY


@pytest.mark.parametrize(
    ("command", "n", "slots"),
    [("pool_grow", -5, 1), ("pool_shrink", 1000, 1), ("pool_grow", 10**9, 10_000), ("pool_shrink", -(10**9), 10_000)],
)
def test_whatever_is_asked_of_the_pool_it_keeps_a_slot_and_a_bound_and_says_so(
    life: Stage, command: str, n: int, slots: int
) -> None:
    def send(name: str, n: int) -> dict[str, str]:
        answers: Any = life.producer.control.broadcast(name, {"n": n}, destination=[NAME], reply=True, timeout=10)
        (answer,) = answers
        return dict(answer[NAME])

    try:
        told = send(command, n)["ok"]
        assert told.startswith(f"this worker runs up to {slots:,} jobs at once now: at least 1 and at most 10,000")
        assert ask(life, NAME, "stats")["pool"]["max-concurrency"] == slots
        assert life.event_of(life.send("c-1"))["data"]["outcome"] == "locked"
    finally:
        send("pool_grow", CONCURRENCY - slots)
    assert ask(life, NAME, "stats")["pool"]["max-concurrency"] == CONCURRENCY


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("pool_grow", {"n": "many"}), ("pool_shrink", {"n": [1]}), ("add_consumer", {"queue": ["b"]}),
        ("add_consumer", {"queue": "lw:1:x"}), ("cancel_consumer", {"queue": {}}), ("revoke", {"task_id": [[]]}),
        ("revoke", {}), ("revoke", {"task_id": []}), ("terminate", {"task_id": "j-1"}), ("enable_events", {"b": 1}),
        ("terminate", {"task_id": "j-1", "signal": "WRONG"}), ("cancel_consumer", {"queue": "elsewhere"}),
        ("election", {"id": "e-1", "topic": "t"}), ("no_such_command", {}),
        ("rate_limit", {"task_name": TASK, "rate_limit": "1/h"}), ("time_limit", {"task_name": TASK, "hard": 1}),
    ],
)  # fmt: skip
def test_a_command_that_makes_no_sense_is_refused_with_a_sentence_and_the_worker_goes_on(
    life: Stage, command: str, arguments: Any
) -> None:
    answers: Any = life.producer.control.broadcast(command, arguments, destination=[NAME], reply=True, timeout=10)
    (answer,) = answers

    assert command in answer[NAME]["error"]
    assert "Traceback" not in life.workers[0].log
    assert life.event_of(life.send("c-1"))["data"]["outcome"] == "locked"


def test_no_command_of_celery_throws_jobs_away(life: Stage) -> None:
    command = [sys.executable, "-m", "celery", "-A", "worker"]
    jobs = [life.send(queue="elsewhere") for _ in range(3)]

    for words in (
        ("purge", "-f"), ("purge", "-f", "-Q", "elsewhere"), ("amqp", "queue.purge", "elsewhere"),
        ("amqp", "queue.delete", "elsewhere"), ("amqp", "basic.get", "elsewhere"),
    ):  # fmt: skip
        ended = subprocess.run(
            [*command, *words], env={**life.environment(), "PATH": ""}, capture_output=True, timeout=30, text=True,
            check=False,
        )  # fmt: skip
        assert "every job ends in one result event" in ended.stdout + ended.stderr, words
        assert "lock-worker cancel --all ends the jobs that wait" in ended.stdout + ended.stderr, words
        assert "Traceback" not in ended.stdout + ended.stderr, words

    assert life.redis.llen("elsewhere") == len(jobs)
    life.redis.delete("elsewhere")


def test_a_queue_that_was_cancelled_is_looked_after_while_jobs_of_it_are_under_way_and_no_longer(life: Stage) -> None:
    control = life.producer.control
    record = {"raw": b"{}", "first": 1, "lease_token": ""}

    def maintenance(queue: str) -> float:
        """When the fleet looked after the queue last."""
        return float(life.redis.hget(Keys(queue).maintenance, "promoted_at") or 0)

    for queue in ("waits", "is-over"):
        control.add_consumer(queue, destination=[NAME], reply=True, timeout=10)
    eventually(lambda: maintenance("waits") and maintenance("is-over"), "upkeep of both queues")
    keys = Keys("waits")
    life.redis.hset(f"{keys.record_prefix}ref-1", mapping=record)
    life.redis.zadd(keys.delayed, {"ref-1": 9e15})
    for queue in ("waits", "is-over"):
        control.cancel_consumer(queue, destination=[NAME], reply=True, timeout=10)

    def in_care() -> set[str]:
        return set(ask(life, NAME, "_request", "monitoring")["in_care"])

    eventually(lambda: in_care() == {QUEUE, "waits"}, "the end of the upkeep of the queue without jobs")
    life.redis.zadd(keys.delayed, {"ref-1": 1})
    eventually(lambda: life.redis.llen(keys.requeued), "a job that was promoted though nobody takes from its queue")
    life.redis.delete(keys.requeued, keys.deadlines, f"{keys.record_prefix}ref-1")
    eventually(lambda: in_care() == {QUEUE}, "the end of the upkeep of the other queue")


def test_a_queue_can_be_added_and_cancelled_on_request(life: Stage) -> None:
    control = life.producer.control
    waiting = life.send("c-1", queue="another")

    control.add_consumer("another", destination=[NAME], reply=True, timeout=10)
    assert life.event_of(waiting)["data"]["outcome"] == "locked"
    control.cancel_consumer("another", destination=[NAME], reply=True, timeout=10)
    left = life.send("c-2", queue="another")

    assert life.event_of(life.send("c-3"))["data"]["outcome"] == "locked"
    assert [queue["name"] for queue in ask(life, NAME, "active_queues")] == [QUEUE]
    assert len(life.wait_events(2)) == 2
    assert life.redis.llen("another") == 1, left


def test_a_message_that_comes_after_the_cancel_was_confirmed_stays_on_its_queue(life: Stage) -> None:
    control = life.producer.control
    for number in range(20):
        control.add_consumer("brief", destination=[NAME], reply=True, timeout=10)
        assert life.event_of(life.send(f"c-{number}", queue="brief"))["data"]["outcome"] == "locked"

        answers = control.cancel_consumer("brief", destination=[NAME], reply=True, timeout=10)
        life.send("c-left", queue="brief")

        assert answers == [{NAME: {"ok": "no longer consuming from brief"}}]
        assert life.event_of(life.send("c-other"))["data"]["outcome"] == "locked"
        assert life.redis.llen("brief") == 1, number
        life.redis.delete("brief")


def test_delayed_jobs_of_an_added_queue_become_ready(life: Stage) -> None:
    control = life.producer.control
    keys = Keys("third")
    life.send("c-1", task_id="delayed-1", queue="third")
    record = {
        "raw": life.redis.rpop("third"),
        "first": round(time.time() * 1000),
        "attempts": 0,
        "crashes": 0,
        "lease_token": "",
    }
    life.redis.hset(f"{keys.record_prefix}ref-1", mapping=record)
    life.redis.zadd(keys.delayed, {"ref-1": 0})

    control.add_consumer("third", destination=[NAME], reply=True, timeout=10)

    assert life.event_of("delayed-1")["data"]["outcome"] == "locked"
    control.cancel_consumer("third", destination=[NAME], reply=True, timeout=10)


def test_messages_that_celery_never_sees_do_not_keep_their_slots_until_its_loop_wakes_up(life: Stage) -> None:
    for number in range(20 * CONCURRENCY):
        life.push(f"junk {number}")
    life.wait_events(20 * CONCURRENCY, seconds=8)

    for _ in range(20 * CONCURRENCY):
        life.send(countdown=600)
    eventually(lambda: life.redis.zcard(life.keys.delayed) == 20 * CONCURRENCY, "all set aside", 8)
    life.redis.flushall()


def test_nothing_of_jobs_that_are_over_is_kept_in_memory(life: Stage) -> None:
    jobs = 0
    for number in range(60):
        life.send(f"c-{number}")
        life.send(f"missing-{number}")
        life.send(f"c-{number}", task_id=f"twice-{number}")
        life.send(f"c-{number}", task_id=f"twice-{number}")
        life.send("", task_id=f"invalid-{number}")
        life.send(f"c-{number}", fields={"dry_run": True})
        jobs += 5
    life.push(b"junk")

    eventually(lambda: life.redis.xlen(RESULTS) >= jobs + 1, "all events", 60)
    life.wait_idle()

    after = eventually(
        lambda: (found := ask(life, NAME, "_request", "monitoring"))["active"] == 0 and found, "an idle worker"
    )
    assert len(life.events()) == jobs + 1
    assert (after["requests"], after["reserved"], after["active"]) == (0, 0, 0)
    assert after["successful"] <= 1000, "Celery keeps the last thousand"


def test_the_options_for_concurrency_and_queues_mean_what_they_mean_in_celery(life: Stage) -> None:
    life.worker("-c", "3", "-Q", "a,b", CONCURRENCY=50)
    jobs = {life.send(f"brief-{number}", queue="ab"[number % 2]) for number in range(12)}

    assert {event["id"] for event in life.wait_events(12)} == jobs

    assert life.api.stats()["peak_in_flight"] == 3
