"""An API that asks for fewer calls (429, or 503 with Retry-After): no job pays for it, and the fleet finds its rate."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sandbox.faults import Delay, Respond
from sandbox.free_port import free_port
from sandbox.script import Quota, Rule, Script
from tests.system.stage import Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable


def refusing(status: int, retry_after: str | None) -> Script:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Script(rules=(Rule(then=Respond(status=status, headers=headers)),))


def ends(events: Iterable[dict[str, Any]]) -> Counter[tuple[str, int]]:
    return Counter((event["data"]["outcome"], event["data"]["attempts"]) for event in events)


def test_a_lasting_429_costs_no_job_an_attempt_and_the_api_few_calls(stage: Stage) -> None:
    check_overload(stage, 429, None)


@pytest.mark.parametrize("retry_after", ["1", "0", "Sun, 06 Nov 1994 08:49:37 GMT"])
def test_whatever_a_429_asks_for_no_job_is_given_up(stage: Stage, retry_after: str) -> None:
    check_overload(stage, 429, retry_after)


def test_a_lasting_503_with_a_retry_after_is_an_overload_too(stage: Stage) -> None:
    check_overload(stage, 503, "0")


def check_overload(stage: Stage, status: int, retry_after: str | None) -> None:
    # given an API that accepts no call at all
    stage.api.script = refusing(status, retry_after)
    for number in range(100):
        stage.send(f"c-{number}")
    worker = stage.worker(MAX_ATTEMPTS=2)

    # then it sees single calls, further and further apart
    eventually(lambda: len(worker.lines("fleet_paused")) >= 3, "three pauses")
    assert len(stage.api.calls()) <= 8
    assert stage.events() == []
    assert stage.jobs_left() == 100

    # and when it accepts calls again, every job is done by its first attempt
    stage.api.script = Script()
    assert ends(stage.wait_events(100, 60)) == {("locked", 1): 100}

    # and the log tells of the begin and the end, and of each pause between at INFO
    eventually(lambda: worker.lines("fleet_resumed"), "the end of the pauses")
    assert [line["level"] for line in worker.lines("fleet_paused")][:3] == ["warning", "info", "info"]


@pytest.mark.parametrize("status", [500, 502])
def test_a_retry_after_of_zero_does_not_shorten_the_backoff(stage: Stage, status: int) -> None:
    stage.api.script = refusing(status, "0")
    job = stage.send()
    stage.worker(MAX_ATTEMPTS=4, RETRY_BASE_SECONDS=0.5)

    stage.event_of(job)

    calls = stage.api.calls()
    assert len(calls) == 4
    assert calls[-1].at_monotonic - calls[0].at_monotonic > 0.1


@pytest.mark.parametrize("workers", [1, 3])
def test_the_fleet_finds_the_quota_of_an_api_and_keeps_to_it(stage: Stage, workers: int) -> None:
    quota, jobs = 20, 200
    stage.api.script = Script(rules=(Rule(then=Delay(ms=20)),), quota=Quota(calls=quota, retry_after="1"))
    for number in range(jobs):
        stage.send(f"c-{number}")
    for _ in range(workers):
        stage.start(MAX_ATTEMPTS=1)

    assert ends(stage.wait_events(jobs, 60)) == {("locked", 1): jobs}

    answers = Counter(call.answer for call in stage.api.calls())
    assert answers["429"] <= (1 + workers) * quota, "each start finds out, and then nearly none is refused"


def test_what_the_fleet_keeps_to_is_reported_by_log_metric_readiness_and_redis(stage: Stage) -> None:
    port = free_port("127.0.0.1")
    stage.api.script = refusing(429, "60")
    stage.send()
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    eventually(lambda: stage.redis.exists(stage.keys.pause), "the pause")

    def ask(path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=10)

    eventually(lambda: ask("/readyz").json() == {"status": "ready", "held_back_by": ["paused"]}, "the reason")
    assert ask("/readyz").status_code == 200
    eventually(lambda: 'lock_worker_fleet_paused{by="api"} 1.0' in ask("/metrics").text, "the pause in the metrics")
    assert "lock_worker_fleet_calls_per_second_limit 1.0" in ask("/metrics").text
    (line,) = worker.lines("fleet_paused")
    assert (line["status"], line["level"]) == (429, "warning")
    assert b"429" in stage.redis.get(stage.keys.pause)


@pytest.mark.parametrize(
    "nonsense",
    [
        ("SET", "nonsense"),
        ("HSET", "version", "many", "rate", "fast", "epoch", "-1", "answered", "1e400", "state", "{"),
        ("HSET", "version", "3", "rate", "nan", "epoch", "2", "failed", "none", "state", '{"rate":"x"}'),
        ("HSET", "version", "9", "rate", "0.000001", "epoch", "2", "state", "[]"),
    ],
    ids=["another type", "words", "no numbers", "next to nothing"],
)
def test_a_limit_that_somebody_overwrote_stops_nobody(stage: Stage, nonsense: tuple[str, ...]) -> None:
    command, *values = nonsense
    stage.redis.execute_command(command, stage.keys.limit, *values)
    stage.worker()

    for number in range(3):
        stage.send(f"c-{number}")

    stage.wait_events(3, 60)


def reported(worker: WorkerProcess) -> list[str]:
    return [line["event"] for event in ("fleet_paused", "breaker_opened") for line in worker.lines(event)]


def test_a_conversation_that_is_refused_for_load_again_and_again_slows_nobody_else(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(id="busy", then=Respond(status=429)),))
    worker = stage.warm_up(stage.worker(JOB_MAX_AGE_SECONDS=12))
    job = stage.send("busy")

    def is_over_among_others() -> bool:
        stage.send("good")
        return any(event["id"] == job for event in stage.events())

    eventually(is_over_among_others, "the end of its time", 40)

    stage.wait_idle()
    (event,) = [event for event in stage.events() if event["id"] == job]
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("exhausted", "rate_limited")
    assert len(reported(worker)) <= 3
