"""Celery's message options: when a job may run, until when, in which order, and what has no effect here.

All but the tests of a restart and of priorities share one worker with a single slot, whose local time is nine hours
ahead of UTC.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from celery import signature

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tests.system.stage import TASK, Stage, WorkerProcess, eventually
from worker.broker.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

    from sandbox.call_log import Call

SOON = timedelta(seconds=2)
"""Long enough for a job to be seen waiting, short enough to wait for."""

CLOCK_STEP_SECONDS = 0.01
"""How far the clocks of two processes may disagree about one moment."""

LATE_SECONDS = 4.0
"""A job that is due for so long would have been noticed much earlier by any worker that looks."""


@pytest.fixture(scope="module")
def stage(module_stage: Stage) -> Stage:
    """One system for all options."""
    return module_stage


@pytest.fixture(scope="module")
def worker(stage: Stage) -> WorkerProcess:
    return stage.worker(CONCURRENCY=1, TZ="JST-9")


@pytest.fixture
def conversation(stage: Stage) -> Iterator[str]:
    """A conversation that no other test has called. Afterwards the API is well again, and no job is left."""
    yield f"c-{uuid.uuid4()}"
    stage.api.script = Script()
    stage.wait_idle()


def calls_for(stage: Stage, conversation: str) -> list[Call]:
    return [call for call in stage.api.calls() if call.conversation_id == conversation]


def outcome_of(stage: Stage, job: str) -> str:
    return str(stage.event_of(job)["data"]["outcome"])


def wait_parked(stage: Stage, keys: Keys | None = None) -> float:
    """Wait until one job is put aside, and held by nobody; give the moment it is due, as a Unix time."""
    keys = keys or stage.keys
    ((_, due_ms),) = eventually(lambda: stage.redis.zrange(keys.delayed, 0, -1, withscores=True), "a parked job")
    assert stage.redis.zcard(keys.leases) == 0
    return float(due_ms) / 1000


def forget_parked(stage: Stage) -> None:
    """Take jobs that are put aside out of Redis, so that nobody need wait for them."""
    for ref in stage.redis.zrange(stage.keys.delayed, 0, -1):
        stage.redis.delete(stage.keys.record_prefix + ref.decode())
        stage.redis.zrem(stage.keys.delayed, ref)


def push_with_headers(stage: Stage, conversation: str, **headers: Any) -> str:
    """Enqueue a job as no Celery client would; its id is the conversation's."""
    body = json.dumps([[], {"conversation_id": conversation}, {}])
    told = {"id": conversation, "task": TASK, **headers}
    stage.push(json.dumps({"body": body, "headers": told, "properties": {"body_encoding": "utf-8"}}))
    return conversation


# eta


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("option", ["eta", "countdown"])
def test_a_job_with_an_eta_waits_in_redis_and_runs_soon_after(option: str, stage: Stage, conversation: str) -> None:
    eta = datetime.now(UTC) + SOON
    job = stage.send(conversation, **({"eta": eta} if option == "eta" else {"countdown": SOON.total_seconds()}))

    assert wait_parked(stage) == pytest.approx(eta.timestamp(), abs=0.5)
    assert outcome_of(stage, job) == "locked"
    (call,) = calls_for(stage, conversation)
    assert -CLOCK_STEP_SECONDS <= call.at_wall - eta.timestamp() < LATE_SECONDS


@pytest.mark.usefixtures("worker")
def test_a_naive_eta_is_utc_wherever_the_worker_runs(stage: Stage, conversation: str) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    push_with_headers(stage, conversation, eta=eta.replace(tzinfo=None).isoformat())

    assert wait_parked(stage) == pytest.approx(eta.timestamp(), abs=0.1)
    forget_parked(stage)


@pytest.mark.usefixtures("worker")
def test_an_eta_is_a_moment_whatever_its_offset(stage: Stage, conversation: str) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    push_with_headers(stage, conversation, eta=eta.astimezone(timezone(timedelta(hours=-8))).isoformat())

    assert wait_parked(stage) == pytest.approx(eta.timestamp(), abs=0.1)
    forget_parked(stage)


@pytest.mark.parametrize("ago", [timedelta(milliseconds=1), timedelta(hours=1), timedelta(days=9000)])
def test_an_eta_in_the_past_is_no_wait(ago: timedelta, stage: Stage, conversation: str, worker: WorkerProcess) -> None:
    job = stage.send(conversation, eta=datetime.now(UTC) - ago)
    assert outcome_of(stage, job) == "locked"
    assert [line for line in worker.lines("job_delayed") if line["job"] == job] == []


@pytest.mark.usefixtures("worker")
def test_a_job_that_waits_for_its_eta_takes_no_slot(stage: Stage, conversation: str) -> None:
    waiting = stage.send(conversation, countdown=SOON.total_seconds())
    wait_parked(stage)

    other = stage.send(f"{conversation}-other")

    assert outcome_of(stage, other) == "locked"
    assert outcome_of(stage, waiting) == "locked"
    earlier, later = stage.api.calls()[-2:]
    assert (earlier.conversation_id, later.conversation_id) == (f"{conversation}-other", conversation)


def test_a_job_that_waits_for_its_eta_outlives_the_worker_that_took_it(stage: Stage, conversation: str) -> None:
    queue = "moderation.lock.restart"
    first = stage.worker(LOCK_QUEUE=queue)
    eta = datetime.now(UTC) + SOON
    job = stage.send(conversation, queue=queue, eta=eta)
    wait_parked(stage, Keys(queue))
    assert first.stop() == 0
    assert stage.redis.zcard(Keys(queue).delayed) == 1
    assert calls_for(stage, conversation) == []

    stage.worker(LOCK_QUEUE=queue)

    event = stage.event_of(job)
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 1)
    (call,) = calls_for(stage, conversation)
    assert call.at_wall >= eta.timestamp() - CLOCK_STEP_SECONDS


# expires


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("time_zone", [UTC, None], ids=["aware", "naive"])
def test_a_job_that_expired_in_the_queue_is_skipped_without_a_call(
    time_zone: tzinfo | None, stage: Stage, conversation: str
) -> None:
    expires = datetime.now(UTC).replace(tzinfo=time_zone) - timedelta(seconds=1)
    job = push_with_headers(stage, conversation, expires=expires.isoformat())

    event = stage.event_of(job)
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_skipped", "expired")
    assert (event["data"]["attempts"], event["data"]["error"]["type"]) == (0, "expired")
    assert calls_for(stage, conversation) == []
    assert [dead for dead, _ in stage.dead_letters() if dead["id"] == job] == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("time_zone", [UTC, None], ids=["aware", "naive"])
def test_a_job_that_expires_later_is_called(time_zone: tzinfo | None, stage: Stage, conversation: str) -> None:
    expires = datetime.now(UTC).replace(tzinfo=time_zone) + timedelta(minutes=1)
    assert outcome_of(stage, push_with_headers(stage, conversation, expires=expires.isoformat())) == "locked"


@pytest.mark.usefixtures("worker")
def test_a_job_that_expires_between_two_calls_is_not_called_again(stage: Stage, conversation: str) -> None:
    failure = Respond(status=500, headers={"Retry-After": "30"})
    stage.api.script = Script(rules=(Rule(id=conversation, first_calls=1, then=failure),))
    expires = datetime.now(UTC) + timedelta(seconds=2)
    job = stage.send(conversation, expires=expires)
    wait_parked(stage)
    eventually(lambda: datetime.now(UTC) > expires, "the moment it expires")

    for ref in stage.redis.zrange(stage.keys.delayed, 0, -1):
        stage.redis.zadd(stage.keys.delayed, {ref: 0})  # the wait is over

    event = stage.event_of(job)
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("expired", 1)
    assert len(calls_for(stage, conversation)) == 1


# producers whose clocks are hours off


@pytest.mark.usefixtures("worker")
def test_a_producer_whose_clock_is_hours_behind_has_its_jobs_run_at_once_or_expire(
    stage: Stage, conversation: str
) -> None:
    believed = datetime.now(UTC) - timedelta(hours=3)
    prompt = stage.send(conversation, eta=believed + timedelta(minutes=1))
    expired = stage.send(f"{conversation}-expired", expires=believed + timedelta(minutes=1))

    assert outcome_of(stage, prompt) == "locked"
    assert outcome_of(stage, expired) == "expired"
    assert calls_for(stage, f"{conversation}-expired") == []


@pytest.mark.usefixtures("worker")
def test_a_producer_whose_clock_is_hours_ahead_has_its_jobs_wait_or_run_and_holds_up_nobody(
    stage: Stage, conversation: str
) -> None:
    believed = datetime.now(UTC) + timedelta(hours=3)
    stage.send(f"{conversation}-late", eta=believed, expires=believed + timedelta(minutes=1))
    prompt = stage.send(conversation, expires=believed + timedelta(minutes=1))
    other = stage.send(f"{conversation}-other")

    assert {outcome_of(stage, prompt), outcome_of(stage, other)} == {"locked"}
    assert wait_parked(stage) == pytest.approx(believed.timestamp(), abs=0.5)
    forget_parked(stage)


# priority


def test_a_backlog_is_worked_off_by_priority_and_within_one_in_the_order_it_came(
    stage: Stage, conversation: str
) -> None:
    queue = "moderation.lock.priorities"
    names = [f"{priority}{turn}" for turn in ("a", "b") for priority in (9, 6, 0, 3)]
    jobs = [stage.send(f"{conversation}-{name}", queue=queue, priority=int(name[0])) for name in names]

    stage.worker(LOCK_QUEUE=queue, CONCURRENCY=1)

    for job in jobs:
        stage.event_of(job)
    called = [call.conversation_id or "" for call in stage.api.calls()]
    assert [name[-2:] for name in called if name.startswith(conversation)] == sorted(names)


# what has no effect, or no call


@pytest.mark.usefixtures("worker")
def test_a_dry_run_ends_as_would_lock_without_a_call(stage: Stage, conversation: str) -> None:
    event = stage.event_of(stage.send(conversation, fields={"dry_run": True}))
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_skipped", "would_lock")
    assert (event["data"]["attempts"], event["data"]["conversation"], event["data"]["error"]) == (0, None, None)
    assert calls_for(stage, conversation) == []


def test_a_time_without_an_offset_is_warned_of_once_for_each_option(
    stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=1)).replace(tzinfo=None).isoformat()
    past = (datetime.now(UTC) - timedelta(minutes=1)).replace(tzinfo=None).isoformat()

    jobs = [push_with_headers(stage, f"{conversation}-{number}", eta=past, expires=soon) for number in range(2)]

    assert [outcome_of(stage, job) for job in jobs] == ["locked"] * 2
    warned = worker.lines("naive_time_read_as_utc")
    assert sorted(line["option"] for line in warned) == ["eta", "expires"]
    assert {line["level"] for line in warned} == {"warning"}


def test_an_option_without_effect_is_warned_of_once_and_the_job_runs(
    stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    # Stock Celery sets reply_to in every message.
    jobs = [stage.send(f"{conversation}-{number}", link=signature("other.task")) for number in range(3)]

    assert [outcome_of(stage, job) for job in jobs] == ["locked"] * 3
    options = [line["option"] for line in worker.lines("option_ignored")]
    assert sorted(options) == ["link", "reply_to"]
    stage.wait_idle()
    assert not [event for event in stage.events() if event["data"]["outcome"] == "rejected"]  # of a link that was sent
