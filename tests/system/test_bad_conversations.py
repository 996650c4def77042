"""Conversations that the API never locks: they end alone, hold nobody up, and use nothing that is meant for others."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.system.stage import QUEUE, Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ATTEMPTS = 4
BAD = Script(rules=(Rule(then=Delay(ms=10)), Rule(ids="bad-*", then=Respond(status=500))))
#: Calls of a bad conversation that may not count: those of a breaker that it opened together with others.
UNCOUNTED = 2


def calls_of(stage: Stage, prefix: str) -> Counter[str]:
    """How often each conversation was called."""
    ids = [call.conversation_id for call in stage.api.calls() if call.conversation_id is not None]
    return Counter(each for each in ids if each.startswith(prefix))


def outcomes(stage: Stage, jobs: Iterable[str]) -> set[str]:
    wanted = set(jobs)
    return {event["data"]["outcome"] for event in stage.events() if event["id"] in wanted}


@pytest.mark.parametrize("count", [10, 25, 60])
def test_bad_conversations_in_front_of_all_others_stop_nobody_and_end_by_themselves(stage: Stage, count: int) -> None:
    stage.api.script = BAD
    bad = [stage.send(f"bad-{number}") for number in range(count)]
    stage.worker(CONCURRENCY=20, MAX_ATTEMPTS=MAX_ATTEMPTS, RETRY_BASE_SECONDS=0.2)

    # when good ones come one after the other, each when the one before is done
    good = []
    for number in range(40):
        good.append(stage.send(f"good-{number}"))
        stage.event_of(good[-1])

    eventually(lambda: stage.jobs_left() == 0, "the end of the bad ones", 60)
    assert outcomes(stage, good) == {"locked"}
    assert outcomes(stage, bad) == {"exhausted"}
    assert max(calls_of(stage, "good-").values()) == 1
    assert max(calls_of(stage, "bad-").values()) <= MAX_ATTEMPTS + UNCOUNTED


def test_with_a_rate_limit_and_no_breaker_bad_conversations_leave_room_for_the_others(stage: Stage) -> None:
    stage.api.script = BAD
    bad = [stage.send(f"bad-{number}") for number in range(30)]
    good = [stage.send(f"good-{number}") for number in range(50)]
    stage.worker(BREAKER_FAILURES=0, RATE_LIMIT_PER_SECOND=20, MAX_ATTEMPTS=8, RETRY_BASE_SECONDS=0.1)

    eventually(lambda: outcomes_count(stage, good) == 50, "the good ones", 30)

    assert outcomes_count(stage, bad) < 30, "they were tried again beside the good ones, not before them"


def outcomes_count(stage: Stage, jobs: Iterable[str]) -> int:
    wanted = set(jobs)
    return sum(event["id"] in wanted for event in stage.events())


def test_a_few_bad_conversations_with_hardly_any_other_work_are_ended_too(stage: Stage) -> None:
    stage.api.script = BAD
    bad = [stage.send(f"bad-{number}") for number in range(4)]
    stage.worker(MAX_ATTEMPTS=MAX_ATTEMPTS, RETRY_BASE_SECONDS=0.1)
    eventually(lambda: len(stage.api.calls()) >= 8, "calls")

    good = stage.send("good-1")

    eventually(lambda: outcomes_count(stage, [*bad, good]) == 5, "the end of all", 60)
    assert outcomes(stage, bad) == {"exhausted"}
    assert outcomes(stage, [good]) == {"locked"}


def test_messages_that_need_no_call_use_no_permit_of_the_rate_limit(stage: Stage) -> None:
    for number in range(40):
        stage.push(f"junk {number}")
        stage.send(f"dry-{number}", fields={"dry_run": True})
        stage.send(f"late-{number}", expires=-1)
    good = stage.send("good")

    stage.worker(RATE_LIMIT_PER_SECOND=0.5)

    assert stage.event_of(good)["data"]["outcome"] == "locked"
    stage.wait_idle()
    assert Counter(event["data"]["outcome"] for event in stage.events()) == {
        "rejected": 40, "would_lock": 40, "expired": 40, "locked": 1,
    }  # fmt: skip
    assert len(stage.api.calls()) == 1


def test_messages_that_need_no_call_use_no_probe_of_an_open_breaker(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=500)),))
    jobs = [stage.send(f"c-{number}") for number in range(20)]
    worker = stage.worker(RETRY_MAX_DELAY_SECONDS=1)
    eventually(lambda: len(worker.lines("breaker_probe_failed")) >= 2, "an outage")

    for number in range(100):
        stage.push(f"junk {number}")
    stage.api.script = Script()

    eventually(lambda: outcomes(stage, jobs) == {"locked"} and stage.jobs_left() == 0, "all done", 40)


# The token


def test_a_worker_whose_token_is_refused_from_the_start_calls_once_or_twice(stage: Stage) -> None:
    stage.api.token = "another-one"
    for number in range(100):
        stage.send(f"c-{number}")

    worker = stage.worker()

    eventually(lambda: worker.lines("breaker_opened"), "the line that says so")
    assert len(stage.api.calls()) <= 2
    assert stage.jobs_left() == 100


def test_a_conversation_that_is_refused_with_a_token_that_serves_others_ends_as_forbidden(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(id="bad-1", then=Respond(status=401)),))
    worker = stage.warm_up(stage.worker(MAX_ATTEMPTS=3))
    bad = stage.send("bad-1")

    def is_over_among_others() -> bool:
        stage.event_of(stage.send("good"))
        return bool(outcomes(stage, [bad]))

    eventually(is_over_among_others, "its end")

    event = stage.event_of(bad)
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("refused", "forbidden")
    assert event["data"]["attempts"] == 3
    assert worker.lines("breaker_opened") == []
    (line,) = [line for line in worker.lines("job_finished") if line["job"] == bad]
    assert line["error"] == "token_refused", "a 403 is logged as forbidden"


# Growing too old


def test_jobs_end_when_they_are_too_old_whatever_holds_them(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=500)),))
    jobs = [stage.send(f"c-{number}") for number in range(30)]
    stage.worker(CONCURRENCY=30, JOB_MAX_AGE_SECONDS=4, MAX_ATTEMPTS=1000)
    taken = eventually(lambda: stage.counters().get("delayed", 0), "jobs that were called")

    eventually(lambda: outcomes_count(stage, jobs) >= taken, "the end of those that were called", 30)

    assert outcomes(stage, jobs) == {"exhausted"}
    problem = stage.events()[0]["data"]["error"]
    assert (problem["type"], problem["status"]) == ("server_error", 500)
    assert "JOB_MAX_AGE_SECONDS" in problem["detail"]


def test_jobs_end_when_they_are_too_old_in_a_pause_that_the_api_asked_for(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=429, headers={"Retry-After": "300"})),))
    job = stage.send()
    stage.worker(JOB_MAX_AGE_SECONDS=3)

    event = stage.event_of(job)

    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("exhausted", 0)
    assert event["data"]["error"]["type"] == "rate_limited"


def test_a_job_that_is_not_too_old_after_all_is_not_called_past_a_pause(stage: Stage) -> None:
    """Its record says so, as that of an eta job may whose worker died; but what is too old passed no gate."""
    keys = stage.keys
    stage.redis.set(keys.pause, "a test", px=60_000)
    stage.send()
    now_ms = round(time.time() * 1000)
    record = {
        "raw": stage.redis.rpop(QUEUE),
        "first": now_ms,
        "attempts": 0,
        "crashes": 0,
        "lease_token": "",
        "deadline": 1,
    }
    stage.redis.hset(f"{keys.record_prefix}ref-1", mapping=record)
    stage.redis.rpush(keys.requeued, "ref-1")
    stage.redis.zadd(keys.deadlines, {"ref-1": 1})

    stage.worker()

    eventually(lambda: (stage.redis.zscore(keys.deadlines, "ref-1") or 0) > now_ms, "the job back, with its deadline")
    assert stage.redis.lrange(keys.requeued, 0, -1) == [b"ref-1"]
    assert stage.api.calls() == []
    stage.redis.delete(keys.pause)
    (event,) = stage.wait_events(1)
    assert event["data"]["outcome"] == "locked"


def test_the_age_of_a_job_counts_from_its_eta(stage: Stage) -> None:
    job = stage.send(countdown=4)
    stage.worker(JOB_MAX_AGE_SECONDS=2)
    assert stage.event_of(job)["data"]["outcome"] == "locked"
