"""When a job is called again, how its calls are counted, and what they have in common."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from sandbox.faults import (
    Delay,
    Drop,
    Respond,
)
from tests.system.answers.scripted import (
    LONGEST_WAIT_SECONDS,
    MAX_ATTEMPTS,
    answer_in_turn,
    calls_for,
    end_of,
    make_due,
    wait_delayed,
)

if TYPE_CHECKING:
    from tests.system.stage import Stage, WorkerProcess

CLOCK_STEP_SECONDS = 0.01
"""How far the clocks of two processes may disagree about one moment."""


# Counting, and what stays the same over a job's calls


def test_calls_in_place_and_after_a_wait_in_redis_are_counted_together(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500), Respond(status=502, headers={"Retry-After": "30"}))
    job = stage.send(conversation)
    wait_delayed(stage)
    assert len(calls_for(stage, conversation)) == 2

    make_due(stage)

    assert end_of(stage.event_of(job)) == ("locked", 3, None, None)


def test_a_job_ends_when_its_calls_are_used_up_and_tells_the_last_problem(stage: Stage, conversation: str) -> None:
    delayed = Respond(status=500, headers={"Retry-After": "30"})
    answer_in_turn(stage, conversation, delayed, Drop(at="request"), Respond(status=408))
    job = stage.send(conversation)
    wait_delayed(stage)

    make_due(stage)

    assert end_of(stage.event_of(job)) == ("exhausted", MAX_ATTEMPTS, "timeout", 408)
    assert len(calls_for(stage, conversation)) == MAX_ATTEMPTS


def test_every_call_of_a_job_has_its_idempotency_key_and_continues_the_producers_trace(
    stage: Stage, conversation: str
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    delayed = Respond(status=500, headers={"Retry-After": "30"})
    answer_in_turn(stage, conversation, Respond(status=503), delayed)
    job = stage.send(conversation, headers={"traceparent": f"00-{trace}-{parent}-01"})
    wait_delayed(stage)
    make_due(stage)
    stage.event_of(job)

    calls = calls_for(stage, conversation)
    assert [call.idempotency_key for call in calls] == [job] * 3
    assert {call.authorization for call in calls} == {"right"}
    contexts = [(call.traceparent or "").split("-") for call in calls]
    assert {(version, trace_id, flags) for version, trace_id, _, flags in contexts} == {("00", trace, "01")}
    assert len({parent} | {span for _, _, span, _ in contexts}) == 4
    assert stage.event_of(job)["traceparent"].split("-")[1] == trace


def test_a_job_without_a_trace_has_one_over_all_its_deliveries_that_nobody_samples(
    stage: Stage, conversation: str
) -> None:
    delayed = Respond(status=500, headers={"Retry-After": "30"})
    answer_in_turn(stage, conversation, Respond(status=503), delayed)
    job = stage.send(conversation)
    wait_delayed(stage)
    make_due(stage)
    event = stage.event_of(job)

    contexts = [(call.traceparent or "").split("-") for call in calls_for(stage, conversation)]
    assert len(contexts) == 3
    (trace,) = {trace for _, trace, _, _ in contexts}
    assert {flags for *_, flags in contexts} == {"00"}
    assert event["traceparent"].split("-")[1] == trace
    other = stage.event_of(stage.send(f"{conversation}-2"))
    assert other["traceparent"].split("-")[1] != trace


# A call that may still be at work


def test_a_409_to_the_call_after_one_that_took_too_long_is_tried_again(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Delay(ms=60_000), Respond(status=409))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 3, None, None)


def test_a_409_is_tried_again_though_the_call_before_it_was_made_by_another_delivery(
    stage: Stage, conversation: str
) -> None:
    answer_in_turn(stage, conversation, Respond(status=504, headers={"Retry-After": "30"}), Respond(status=409))
    job = stage.send(conversation)
    wait_delayed(stage)
    make_due(stage)
    assert end_of(stage.event_of(job)) == ("locked", 3, None, None)


def test_a_409_that_asks_to_be_tried_again_is(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=409, headers={"Retry-After": "0"}))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)


# Retry-After


def test_a_retry_after_in_seconds_is_waited_out(stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": "1"}))
    job = stage.send(conversation)

    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)
    first, second = calls_for(stage, conversation)
    assert first.ended_monotonic is not None
    assert second.at_monotonic - first.ended_monotonic >= 1 - CLOCK_STEP_SECONDS


def test_a_retry_after_as_a_date_is_waited_out(stage: Stage, conversation: str) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    date = format_datetime(moment, usegmt=True)
    answer_in_turn(stage, conversation, Respond(status=502, headers={"Retry-After": date}))
    job = stage.send(conversation)

    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)
    _, second = calls_for(stage, conversation)
    assert second.at_wall >= moment.timestamp() - CLOCK_STEP_SECONDS


@pytest.mark.parametrize("header", ["-30", "soon", "1e9", "30.5.1", "Sun, 99 Nov 2099 08:49:37 GMT"])
def test_a_retry_after_without_sense_is_as_good_as_none(header: str, stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": header}))
    job = stage.send(conversation)

    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)
    first, second = calls_for(stage, conversation)
    assert first.ended_monotonic is not None
    assert second.at_monotonic - first.ended_monotonic < 1


@pytest.mark.parametrize("header", ["31536000", "9" * 400, "Fri, 22 Nov 2999 08:49:37 GMT"])
def test_a_retry_after_of_a_year_is_cut_to_the_longest_wait(header: str, stage: Stage, conversation: str) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": header}))
    sent_at = time.time()
    job = stage.send(conversation)

    due_at = wait_delayed(stage)
    assert due_at - sent_at > LONGEST_WAIT_SECONDS - CLOCK_STEP_SECONDS
    assert due_at - time.time() < LONGEST_WAIT_SECONDS + CLOCK_STEP_SECONDS
    make_due(stage)
    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)


def test_a_job_that_waits_leaves_the_only_slot_to_another_job(
    stage: Stage, conversation: str, worker: WorkerProcess
) -> None:
    answer_in_turn(stage, conversation, Respond(status=500, headers={"Retry-After": "30"}))
    waiting = stage.send(conversation)
    wait_delayed(stage)

    other = stage.send(f"{conversation}-other")

    assert stage.event_of(other)["data"]["outcome"] == "locked"
    assert stage.redis.zcard(stage.keys.delayed) == 1
    assert len(calls_for(stage, conversation)) == 1
    (line,) = [line for line in worker.lines("job_retry") if line["job"] == waiting]
    assert (line["level"], line["attempt"], line["reason"], line["status"], line["where"]) == (
        "info", 1, "server_error", 500, "redis",
    )  # fmt: skip
    assert 30 <= line["wait"] <= 31
    assert worker.lines("job_delayed") == []
    make_due(stage)
    assert end_of(stage.event_of(waiting)) == ("locked", 2, None, None)
