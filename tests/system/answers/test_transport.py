"""What the transport of an answer leads to: a broken connection, a slow or too large answer, an unusual head."""

from __future__ import annotations

import pytest

from sandbox.faults import (
    AnyAnswer,
    AnyDelay,
    Delay,
    Drip,
    Drop,
    GarbageStatusLine,
    GzipBomb,
    HugeHeaders,
    Oversized,
    Respond,
)
from tests.system.answers.scripted import (
    MAX_ATTEMPTS,
    answer_always,
    answer_in_turn,
    assert_exhausted,
    assert_locked_at_the_last_attempt,
    end_of,
)
from tests.system.stage import TOKEN, Stage

MIB = 1 << 20

RETRIED: dict[str, tuple[AnyAnswer, str, int | None]] = {
    "two megabytes": (Oversized(size=2 * MIB), "unconfirmed", 200),
    "two megabytes in chunks": (Oversized(size=2 * MIB, chunked=True), "unconfirmed", 200),
    "two megabytes once inflated": (GzipBomb(size=2 * MIB), "unconfirmed", 200),
    "no HTTP": (GarbageStatusLine(), "unconfirmed", None),
    "a header of a megabyte": (HugeHeaders(size=MIB), "unconfirmed", None),
    "half a body": (Drop(at="body"), "unreachable", 200),
    "half a head": (Drop(at="headers"), "unreachable", None),
    "a closed connection": (Drop(at="request"), "unreachable", None),
    "a reset connection": (Drop(at="request", reset=True), "unreachable", None),
}

UNUSUAL_HEADERS: dict[str, dict[str, str]] = {
    "a header of 9 kB": {"X-Padding": "a" * 9_000},
    "150 fields": {f"X-{number}": "a" for number in range(150)},
    "an empty encoding": {"Content-Encoding": ""},
    "an encoding that is a charset": {"Content-Encoding": "utf-8"},
    "an encoding that is none": {"Content-Encoding": "none"},
}


@pytest.mark.parametrize(("fault", "problem", "status"), RETRIED.values(), ids=RETRIED.keys())
def test_an_answer_that_cannot_be_read_is_tried_again_and_ends_as_exhausted_if_it_lasts(
    fault: AnyAnswer, problem: str, status: int | None, stage: Stage, conversation: str
) -> None:
    assert_locked_at_the_last_attempt(stage, conversation, fault)
    assert_exhausted(stage, f"{conversation}-lasting", fault, problem, status)


@pytest.mark.parametrize(
    "fault",
    [Drip(every_ms=50), Drip(every_ms=50, part="head"), Delay(ms=60_000)],
    ids=["a dripping body", "a dripping head", "silence"],
)
def test_an_answer_that_takes_too_long_as_a_whole_is_given_up_and_tried_again(
    fault: AnyAnswer | AnyDelay, stage: Stage, conversation: str
) -> None:
    answer_in_turn(stage, conversation, fault)
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 2, None, None)


def test_an_api_that_never_answers_in_time_ends_as_a_timeout(stage: Stage, conversation: str) -> None:
    answer_always(stage, conversation, Drip(every_ms=50))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("exhausted", MAX_ATTEMPTS, "timeout", 200)


def test_a_refused_port_is_tried_again_and_ends_as_unreachable(stage: Stage, conversation: str) -> None:
    with stage.api_away():
        job = stage.send(conversation)
        assert end_of(stage.event_of(job)) == ("exhausted", MAX_ATTEMPTS, "unreachable", None)
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", 1, None, None)


@pytest.mark.parametrize("what", UNUSUAL_HEADERS)
def test_headers_that_browsers_take_are_no_reason_to_call_again(what: str, stage: Stage, conversation: str) -> None:
    answer_always(stage, conversation, Respond(status=200, headers=UNUSUAL_HEADERS[what]))
    assert end_of(stage.event_of(stage.send(conversation))) == ("locked", 1, None, None)


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_with_a_large_head_is_one(status: int, stage: Stage, conversation: str) -> None:
    answer_always(stage, conversation, Respond(status=status, headers={"X-Padding": "a" * 9_000}))
    assert end_of(stage.event_of(stage.send(conversation)))[:2] == ("refused", 1)


def test_no_token_is_in_any_log(stage: Stage) -> None:
    assert not [worker for worker in stage.workers if TOKEN in worker.log]
