"""Flow control of whole workers: a rate limit, pauses, outages and refused tokens, as the API and an operator see them.

Two workers stand for a fleet. What they may not do is read from the API's log of calls; none of the tests waits for
long enough, but for a line in a log or a state in Redis.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.stage import TOKEN, Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.call_log import Call
    from sandbox.server_binaries import ServerBinary

CLOCK_STEP_SECONDS = 0.01
"""How far the clocks of two processes may disagree about one moment."""

MAX_WAIT_SECONDS = 60
MAX_ATTEMPTS = 3
OUTAGE = Script(rules=(Rule(then=Respond(status=503)),))


def fleet_of_two(stage: Stage, **settings: object) -> list[WorkerProcess]:
    workers = [stage.start(**settings) for _ in range(2)]
    return [worker.wait_ready() for worker in workers]


def send_jobs(stage: Stage, count: int, prefix: str = "c") -> list[str]:
    return [stage.send(f"{prefix}-{number}") for number in range(count)]


def starts(calls: list[Call]) -> list[float]:
    """When calls came in, in order."""
    return sorted(call.at_monotonic for call in calls)


def most_in_a_window(moments: list[float], seconds: float = 1.0) -> int:
    """How many of the moments at most lie closer together than so many seconds."""
    return max(sum(1 for moment in moments if 0 <= moment - first < seconds) for first in moments)


def in_flight(stage: Stage) -> int:
    return int(stage.redis.zcard(stage.keys.leases))


def breaker_lines(workers: list[WorkerProcess]) -> list[str]:
    """All that was said of breakers, in the order of each worker's log."""
    events = ("opened", "probe_failed", "reopened", "still_open", "closed")
    return [line["event"] for worker in workers for event in events for line in worker.lines(f"breaker_{event}")]


def finished_by(worker: WorkerProcess) -> int:
    return len(worker.lines("job_finished"))


def outcomes(events: list[dict[str, Any]]) -> set[tuple[str, int]]:
    """Each way in which jobs ended, with the attempts it took."""
    return {(event["data"]["outcome"], event["data"]["attempts"]) for event in events}


# The rate limit


def test_a_rate_limit_holds_in_any_second_over_the_fleet_and_the_backlog_waits_in_redis(stage: Stage) -> None:
    rate = 20
    stage.api.script = Script(rules=(Rule(ids="again-*", first_calls=1, then=Respond(status=503)),))
    send_jobs(stage, 90)
    send_jobs(stage, 10, "again")
    workers = fleet_of_two(stage, RATE_LIMIT_PER_SECOND=rate)

    held: list[int] = []

    def are_done() -> bool:
        held.append(in_flight(stage))
        return len(stage.events()) == 100

    eventually(are_done, "100 events")
    calls = stage.api.calls()
    moments = starts(calls)
    assert len(calls) == 110
    assert most_in_a_window(moments) <= 1.25 * rate
    assert (len(moments) - 1) / (moments[-1] - moments[0]) >= 0.7 * rate
    assert max(held) <= rate
    assert all(finished_by(worker) for worker in workers)
    assert outcomes(stage.events()) == {("locked", 1), ("locked", 2)}
    stage.wait_idle()
    assert stage.leftovers() == []


def test_a_low_rate_never_lets_two_calls_start_within_a_second(stage: Stage) -> None:
    send_jobs(stage, 3)
    fleet_of_two(stage, RATE_LIMIT_PER_SECOND=1)

    events = stage.wait_events(3)

    # By the clock of Redis: on a busy machine one call takes longer from there to the API than another.
    taken = sorted(datetime.fromisoformat(event["data"]["received_at"]) for event in events)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(taken)]
    assert min(gaps) >= 1
    assert sum(gaps) <= 4
    assert len(stage.api.calls()) == 3


# Pauses


@pytest.fixture(scope="module")
def running(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A fleet of two for several tests."""
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path_factory.mktemp("fleet")) as stage:
        fleet_of_two(
            stage,
            MAX_ATTEMPTS=MAX_ATTEMPTS,
            RETRY_BASE_SECONDS=0.3,
            RETRY_MAX_DELAY_SECONDS=MAX_WAIT_SECONDS,
        )
        yield stage


@pytest.fixture
def fleet(running: Stage) -> Iterator[Stage]:
    """The same, with nothing left of the test before, and no breaker open after it."""
    running.redis.flushall()
    running.api.reset()
    yield running
    running.api.script = Script()
    running.wait_idle()
    assert breaker_lines(running.workers) == []


def pauses_said(stage: Stage) -> list[float]:
    return [line["wait"] for worker in stage.workers for line in worker.lines("fleet_paused")]


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_of_an_overloaded_api_pauses_both_workers(fleet: Stage, status: int) -> None:
    # given an answer that asks all to wait
    fleet.api.script = Script(
        rules=(Rule(id="first", first_calls=1, then=Respond(status=status, headers={"Retry-After": "2"})),)
    )
    said, done = len(pauses_said(fleet)), [finished_by(worker) for worker in fleet.workers]
    first = fleet.send("first")
    eventually(lambda: fleet.redis.exists(fleet.keys.pause), "the pause")

    # when there is much to do for both
    jobs = send_jobs(fleet, 200)
    eventually(lambda: in_flight(fleet) == 0, "no job in flight")
    assert fleet.jobs_left() == 201 or not fleet.redis.exists(fleet.keys.pause)

    # then nobody calls before the time is over, and both go on by themselves
    assert {event["id"] for event in fleet.wait_events(201)} == {first, *jobs}
    refused, *others = sorted(fleet.api.calls(), key=lambda call: call.number)
    assert (refused.conversation_id, refused.answer) == ("first", str(status))
    assert refused.ended_monotonic is not None
    assert min(starts(others)) >= refused.ended_monotonic + 2 - CLOCK_STEP_SECONDS
    assert min(starts(others)) <= refused.ended_monotonic + 5
    assert all(finished_by(worker) > before for worker, before in zip(fleet.workers, done, strict=True))
    assert len(pauses_said(fleet)) == said + 1


def test_a_503_that_names_no_time_is_a_failure_of_its_own_and_pauses_nobody(fleet: Stage) -> None:
    nonsense = {"nothing": {}, "negative": "-30", "text": "soon", "exponent": "1e9", "list": "30, 60", "latin": "é"}
    fleet.api.script = Script(
        rules=tuple(
            Rule(id=name, first_calls=1, then=Respond(status=503, headers={"Retry-After": value} if value else {}))
            for name, value in nonsense.items()
        )
    )
    said = len(pauses_said(fleet))

    for name in nonsense:
        fleet.send(name)
        send_jobs(fleet, 5, name)

    events = fleet.wait_events(6 * len(nonsense))
    assert outcomes(events) == {("locked", 1), ("locked", 2)}
    assert len(pauses_said(fleet)) == said
    assert not fleet.redis.exists(fleet.keys.pause)


def test_a_pause_of_a_year_is_cut_to_the_longest_wait_and_ends_at_once_when_its_key_is_deleted(fleet: Stage) -> None:
    fleet.api.script = Script(
        rules=(Rule(id="first", first_calls=1, then=Respond(status=429, headers={"Retry-After": "31536000"})),)
    )
    fleet.send("first")
    eventually(lambda: fleet.redis.exists(fleet.keys.pause), "the pause")
    assert 0 < fleet.redis.pttl(fleet.keys.pause) <= MAX_WAIT_SECONDS * 1000
    send_jobs(fleet, 20)

    fleet.redis.delete(fleet.keys.pause)

    fleet.wait_events(20)
    for ref in fleet.redis.zrange(fleet.keys.delayed, 0, -1):  # the job that was asked to wait still does
        fleet.redis.zadd(fleet.keys.delayed, {ref: 0})
    fleet.wait_events(21)


def test_a_few_jobs_that_always_fail_end_as_exhausted_and_stop_nobody(fleet: Stage) -> None:
    fleet.api.script = Script(rules=(Rule(ids="bad-*", then=Respond(status=500)),))
    bad = set(send_jobs(fleet, 5, "bad"))

    def are_ended_among_good_ones() -> bool:
        fleet.send("good")
        return bad <= {event["id"] for event in fleet.events()}

    eventually(are_ended_among_good_ones, "the end of the bad jobs")

    fleet.wait_idle()
    events = fleet.events()
    assert outcomes([event for event in events if event["id"] in bad]) == {("exhausted", MAX_ATTEMPTS)}
    assert outcomes([event for event in events if event["id"] not in bad]) == {("locked", 1)}


# An API that is down


def test_an_outage_is_met_with_single_probes_and_costs_no_job_its_attempts(stage: Stage) -> None:
    # given a backlog, and an API that fails
    stage.api.script = OUTAGE
    jobs = send_jobs(stage, 300)
    worker = stage.worker(CONCURRENCY=30, MAX_ATTEMPTS=MAX_ATTEMPTS, RETRY_MAX_DELAY_SECONDS=1)
    eventually(lambda: worker.lines("breaker_opened") and in_flight(stage) == 0, "an open breaker and no job in flight")
    at_first = len(stage.api.calls())
    assert at_first <= 30 + 10

    # then single jobs go out to look, however many wait
    eventually(lambda: worker.lines("breaker_probe_failed"), "a probe")
    with stage.api_away():  # and an API that is not even there is no different
        eventually(lambda: len(worker.lines("breaker_probe_failed")) >= 2, "another probe")
    probes = len(stage.api.calls()) - at_first
    assert 1 <= probes <= 2
    assert stage.jobs_left() == 300
    assert stage.events() == []

    # when it is well again, all jobs are done and none has lost its attempts
    stage.api.script = Script()
    events = stage.wait_events(300)
    assert {event["id"] for event in events} == set(jobs)
    assert {event["data"]["outcome"] for event in events} == {"locked"}
    assert max(event["data"]["attempts"] for event in events) <= MAX_ATTEMPTS
    assert sum(event["data"]["attempts"] for event in events) <= 300 + 10
    eventually(lambda: worker.lines("breaker_closed"), "a closed breaker")
    assert [len(worker.lines(f"breaker_{event}")) for event in ("opened", "closed")] == [1, 1]
    (opened,) = worker.lines("breaker_opened")
    assert (opened["level"], opened["reason"]) == ("error", "api_down")
    assert opened["failures"] >= 10
    assert "API_URL" in opened["advice"]
    assert {line["level"] for line in worker.lines("breaker_probe_failed")} == {"info"}
    (answered,) = worker.lines("api_available")
    assert answered["level"] == "warning"
    assert answered["counts"]["probe_failed"] == len(worker.lines("breaker_probe_failed"))
    assert answered["seconds"] > 0


def test_without_a_breaker_jobs_use_up_their_attempts_in_an_outage(stage: Stage) -> None:
    stage.api.script = OUTAGE
    send_jobs(stage, 40)
    worker = stage.worker(BREAKER_FAILURES=0, MAX_ATTEMPTS=MAX_ATTEMPTS)

    assert outcomes(stage.wait_events(40)) == {("exhausted", MAX_ATTEMPTS)}

    assert breaker_lines([worker]) == []
    assert len(stage.api.calls()) == 40 * MAX_ATTEMPTS


# A token that is refused


def test_a_refused_token_stops_the_worker_loudly_and_a_renewed_one_lets_it_go_on(stage: Stage, tmp_path: Path) -> None:
    # given a token that was withdrawn, and jobs that have a single attempt
    token = tmp_path / "token"
    token.write_text("a-withdrawn-token")
    jobs = send_jobs(stage, 50)
    worker = stage.worker(API_TOKEN="", API_TOKEN_FILE=token, CONCURRENCY=4, MAX_ATTEMPTS=1, RETRY_MAX_DELAY_SECONDS=1)

    # then the worker takes no more, keeps every job, and says in its log what to do
    eventually(lambda: worker.lines("breaker_opened") and in_flight(stage) == 0, "an open breaker and no job in flight")
    at_first = len(stage.api.calls())
    assert at_first <= 4 * 2
    assert stage.jobs_left() == 50
    (said,) = worker.lines("breaker_opened")
    assert (said["level"], said["reason"]) == ("error", "token_refused")
    assert "API_TOKEN_FILE" in said["advice"]

    # when the file holds a good one, it is found without a restart, and no job has lost its attempt
    token.write_text(TOKEN)
    events = stage.wait_events(50)
    assert {event["id"] for event in events} == set(jobs)
    assert outcomes(events) == {("locked", 1)}
    (accepted,) = worker.lines("token_accepted")
    assert (accepted["level"], accepted["reason"]) == ("warning", "token_refused")
    assert accepted["counts"]["opened"] == 1
    calls = stage.api.calls()
    assert [call.authorization for call in calls] == ["wrong"] * at_first + ["right"] * 50
    assert calls[at_first].at_monotonic - calls[at_first - 1].at_monotonic < 10
    assert "a-withdrawn-token" not in worker.log
    assert TOKEN not in worker.log


def test_a_token_that_is_withdrawn_and_renewed_at_once_is_not_even_noticed(stage: Stage, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    stage.api.script = Script(rules=(Rule(id="slow", first_calls=1, then=Delay(ms=1000)),))
    worker = stage.worker(API_TOKEN="", API_TOKEN_FILE=token, MAX_ATTEMPTS=1)
    stage.api.token = "the-next-token"
    job = stage.send("slow")
    eventually(stage.api.calls, "a call with the old token")

    token.write_text("the-next-token")

    assert outcomes([stage.event_of(job)]) == {("locked", 1)}
    assert [call.authorization for call in stage.api.calls()] == ["wrong", "right"]
    assert breaker_lines([worker]) == []


# Settings


@pytest.mark.parametrize("rate", ["0", "-1"])
def test_settings_that_break_a_rule_stop_the_start_and_the_rule_is_named(stage: Stage, rate: str) -> None:
    worker = stage.start(RATE_LIMIT_PER_SECOND=rate, ATTEMPT_TIMEOUT_SECONDS=5, LEASE_SECONDS=5, BREAKER_FAILURES=-1)

    assert worker.process.wait(20) != 0

    assert "RATE_LIMIT_PER_SECOND: Input should be greater than 0" in worker.log
    assert "LEASE_SECONDS: must be longer than ATTEMPT_TIMEOUT_SECONDS (5)" in worker.log
    assert "BREAKER_FAILURES: Input should be greater than or equal to 0" in worker.log
