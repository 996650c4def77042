"""``lock-worker adopt``: jobs that nobody would take are brought in, each once."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.terminal import Terminal
from tests.system.stage import QUEUE, TASK, Stage, eventually
from worker.broker.keys import UNACKED, UNACKED_INDEX, Keys
from worker.message.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD = "old.queue"
STOCK_WORKER = f"""
import sys, time
from celery import Celery
app = Celery(broker=sys.argv[1])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, broker_connection_retry_on_startup=True)
@app.task(name="{TASK}")
def lock_conversation(**fields):
    time.sleep(60)
app.worker_main(["worker", "-P", "threads", "-c", "1", "-Q", "{QUEUE}", "-l", "ERROR", "-n", "stock@test"])
"""


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    with Stage(redis_url, tmp_path) as found:
        yield found


@contextmanager
def stock_worker(stage: Stage, jobs: int) -> Iterator[subprocess.Popen[bytes]]:
    """A stock Celery worker that has so many jobs, and runs one of them for a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOCK_WORKER, stage.redis_url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: stage.redis.hlen(UNACKED) == jobs, "jobs that a stock worker has", 30)
        yield process
    finally:
        process.kill()
        process.wait()


def adopt(stage: Stage, *arguments: str) -> dict[str, Any]:
    ended = Terminal({"REDIS_URL": stage.redis_url}, stage.folder).run("adopt", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_jobs_that_a_killed_stock_worker_had_are_brought_in_once(stage: Stage) -> None:
    sent = {stage.send(f"c-{number}", priority=number % 4 * 3) for number in range(4)}
    with stock_worker(stage, 4) as stock:
        stock.kill()
        stock.wait()
    waiting = {stage.send() for _ in range(3)}

    assert adopt(stage, "--list")["adopted"] == 4
    assert stage.redis.hlen(UNACKED) == 4
    assert adopt(stage)["unacked"] == 4
    assert adopt(stage)["adopted"] == 0

    assert stage.redis.exists(UNACKED, UNACKED_INDEX) == 0
    assert [stage.redis.llen(name) for name in stage.keys.priority_lists] == [4, 1, 1, 1]
    stage.worker()
    assert {event["data"]["job_id"] for event in stage.wait_events(7)} == sent | waiting


def test_a_stock_worker_that_lives_and_answers_keeps_its_jobs(stage: Stage) -> None:
    for number in range(3):
        stage.send(f"c-{number}")
    for number in range(2):
        stage.send(f"later-{number}", countdown=600)  # it keeps them until their time has come
    with stock_worker(stage, 5):
        found = adopt(stage)

    assert (found["adopted"], found["unacked_of_living_workers"]) == (0, 5)
    assert stage.redis.hlen(UNACKED) == 5
    stage.redis.flushall()


def test_jobs_of_other_tasks_are_left_where_they_are(stage: Stage) -> None:
    def entry(task: str, routing_key: str = "celery") -> str:
        message = {
            "body": "W1tdLCB7fSwge31d", "content-type": "application/json", "content-encoding": "utf-8",
            "headers": {"task": task, "id": "j-1"}, "properties": {"body_encoding": "base64"},
        }  # fmt: skip
        return json.dumps([message, "", routing_key])

    entries = {
        "a": entry("send_mail"), "b": entry(TASK), "c": "no JSON", "d": json.dumps([[], "", {}]), "e": "[" * 5000,
        "f": entry("a_typing_error", QUEUE),
    }  # fmt: skip
    stage.redis.hset(UNACKED, mapping=entries)
    stage.redis.zadd(UNACKED_INDEX, dict.fromkeys(entries, 1))

    found = adopt(stage)

    assert (found["unacked"], found["unacked_of_other_tasks"]) == (2, 4)
    assert set(stage.redis.hkeys(UNACKED)) == {b"a", b"c", b"d", b"e"}
    assert stage.redis.llen(QUEUE) == 2


def test_a_queue_that_lock_queue_named_before_is_reported_and_brought_in(stage: Stage) -> None:
    # given an old worker that has put a job aside, and jobs that came after its end
    old = stage.worker(LOCK_QUEUE=OLD)
    later = stage.send(queue=OLD, countdown=1)
    eventually(lambda: stage.redis.zcard(Keys(OLD).delayed), "a delayed job")
    assert old.stop() == 0
    sent = {later, *(stage.send(f"c-{number}", queue=OLD, priority=number * 3) for number in range(4))}

    # when one of the new name starts
    worker = stage.worker()
    (line,) = eventually(lambda: worker.lines("queue_abandoned"), "what the new worker says")

    # then it says what to do, and that does it, once
    assert (line["queue"], line["jobs"], line["level"]) == (OLD, 5, "warning")
    assert f"`lock-worker adopt --queue {OLD}`" in line["advice"]
    assert adopt(stage, "--list")["queues"] == {OLD: 5}
    assert adopt(stage, "--queue", OLD)["queues"] == {OLD: 5}
    assert adopt(stage, "--queue", OLD)["queues"] == {OLD: 0}
    assert adopt(stage)["adopted"] == 0
    assert {event["data"]["job_id"] for event in stage.wait_events(5)} == sent
    assert stage.redis.keys(f"lw:1:{OLD}:job:*") == []


def test_jobs_in_every_state_of_an_old_queue_are_brought_in_with_their_records(stage: Stage) -> None:
    keys = Keys(OLD)
    places = {"requeued": keys.requeued, "retry": keys.retries, "suspect": keys.suspects}
    for ref in (*places, "lapsed", "in flight", "delayed", "on hold"):
        stage.redis.hset(f"{keys.record_prefix}{ref}", mapping={"raw": ref, "first": 1, "token": ""})
    for ref, place in places.items():
        stage.redis.rpush(place, ref)
        stage.redis.zadd(keys.deadlines, {ref: 9e15})
    stage.redis.rpush(keys.requeued, "without a record")
    stage.redis.zadd(keys.leases, {"lapsed": 1, "in flight": 9e15})
    stage.redis.zadd(keys.delayed, {"delayed": 8e15})
    stage.redis.zadd(keys.held, {"0123:on hold": 0})
    stage.redis.lpush(keys.arrived, "arrived")
    stage.redis.hset(keys.maintenance, "promoted_at", 1)

    assert adopt(stage)["queues"] == {OLD: 7}

    new = stage.keys
    assert stage.redis.lrange(QUEUE, 0, -1) == [b"arrived"]
    assert [stage.redis.lrange(place, 0, -1) for place in (new.requeued, new.retries, new.suspects)] == [
        [b"requeued"], [b"retry"], [b"suspect"],
    ]  # fmt: skip
    assert stage.redis.zrange(new.deadlines, 0, -1, withscores=True) == [
        (ref, 9e15) for ref in (b"requeued", b"retry", b"suspect")
    ]
    assert stage.redis.zrange(new.delayed, 0, -1, withscores=True) == [(b"delayed", 8e15)]
    assert stage.redis.zrange(new.leases, 0, -1) == [b"lapsed"]
    assert stage.redis.zrange(keys.leases, 0, -1) == [b"in flight"]
    assert stage.redis.zrange(new.held, 0, -1) == [b"0123:on hold"]
    assert stage.redis.hget(new.controls, "version") is not None  # so that workers look whether that hold is in force
    for ref in (*places, "lapsed", "delayed", "on hold"):
        assert stage.redis.hget(f"{new.record_prefix}{ref}", "raw") == ref.encode()


def test_jobs_on_hold_of_an_old_queue_are_brought_in_and_go_on_unless_they_are_on_hold_here_too(stage: Stage) -> None:
    # given two jobs that the old fleet held by rules of its own
    keys, here = Keys(OLD), Selector(rule="r-2").digest
    jobs = {rule: stage.send(queue=OLD, fields={"rule_id": rule}) for rule in ("r-1", "r-2")}
    for rule in jobs:
        message = stage.redis.rpop(OLD)
        stage.redis.hset(f"{keys.record_prefix}{rule}", mapping={"raw": message, "first": 1, "lease_token": ""})
        stage.redis.zadd(keys.held, {f"{Selector(rule=rule).digest}:{rule}": 0})
    stage.redis.hset(keys.counters, "taken", 2)
    stage.redis.hset(keys.maintenance, "promoted_at", 1)
    worker = stage.worker(JOB_MAX_AGE_SECONDS=0)
    (line,) = eventually(lambda: worker.lines("queue_abandoned"), "what the new worker says")
    assert line["jobs"] == 2

    # when they come to a fleet that holds one of the rules
    Terminal({"REDIS_URL": stage.redis_url}, stage.folder).run("hold", "--rule", "r-2", "--reason", "as there")
    assert adopt(stage)["queues"] == {OLD: 2}

    # then the other one goes on
    assert [event["id"] for event in stage.wait_events(1)] == [jobs["r-1"]]
    assert stage.redis.zrange(stage.keys.held, 0, -1) == [f"{here}:r-2".encode()]
    assert adopt(stage)["adopted"] == 0


def test_a_queue_that_only_strangers_take_from_is_shown_and_brought_in_by_its_name_alone(stage: Stage) -> None:
    job = stage.send(queue="celery")
    stage.producer.send_task("send_mail", queue="mails", ignore_result=True)

    found = adopt(stage)
    assert (found["adopted"], found["other_queues"]) == (0, {"celery": 1})

    assert adopt(stage, "--queue", "celery")["adopted"] == 1
    stage.worker()
    assert stage.event_of(job)["data"]["outcome"] == "locked"
    assert stage.redis.llen("mails") == 1


def test_a_queue_with_messages_of_other_tasks_is_left_as_it_is(stage: Stage) -> None:
    stage.producer.send_task("send_mail", queue="shared", ignore_result=True)
    stage.send(queue="shared")

    ended = Terminal({"REDIS_URL": stage.redis_url}, stage.folder).run("adopt", "--queue", "shared")

    assert ended.returncode == 1
    assert "'shared' also holds 1 message of other tasks" in ended.stderr
    assert stage.redis.llen("shared") == 2


@pytest.mark.parametrize("name", ["", "lw:1:x", QUEUE, "two\nlines"])
def test_a_name_that_makes_no_sense_is_refused(stage: Stage, name: str) -> None:
    ended = Terminal({"REDIS_URL": stage.redis_url}, stage.folder).run("adopt", "--queue", name)

    assert ended.returncode == 2
    assert "--queue" in ended.stderr


def test_a_queue_that_workers_take_from_is_not_emptied(stage: Stage) -> None:
    stage.worker("-Q", f"{QUEUE},b")
    eventually(lambda: stage.redis.zscore(stage.keys.queues, "b"), "a worker that is registered")

    ended = Terminal({"REDIS_URL": stage.redis_url}, stage.folder).run("adopt", "--queue", "b")

    assert ended.returncode == 2
    assert "workers take from it" in ended.stderr
