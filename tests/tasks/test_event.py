"""The event's models are the published schema, and its builder makes that shape whatever it is given."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from tasks import verbatim
from tasks.event import Facts, ResultEvent, build
from tasks.managem import answer_json
from tasks.outcome import (
    TITLES,
    Cancelled,
    Exhausted,
    Expired,
    Locked,
    Outcome,
    Poisoned,
    Problem,
    ProblemType,
    Refused,
    Rejected,
    Revoked,
    WouldLock,
)
from tasks.trace import Trace

FACTS = Facts(
    id="锁-1",
    subject="c-1",
    received_fields={"conversation_id": "c-1", "reason": None},
    replay_of=None,
    received_at=datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC),
    finished_at=datetime(2026, 11, 22, 16, 4, 6, 123456, tzinfo=timezone(timedelta(hours=1))),
    attempts=3,
)
PROBLEM = Problem(ProblemType.SERVER_ERROR, "The API answered 503.", 503)
CONVERSATION = {"id": "c-1", "locked": True, "source": {"type": "NEW"}, "userA": None, "more": [1, 2.5]}
OUTCOMES: list[tuple[Outcome, str, str]] = [
    (Locked(CONVERSATION), "conversation.locked", "locked"),
    (WouldLock(), "conversation.lock_skipped", "would_lock"),
    (Expired(PROBLEM), "conversation.lock_skipped", "expired"),
    (Revoked(PROBLEM), "conversation.lock_skipped", "revoked"),
    (Revoked(PROBLEM, was_called=True), "conversation.lock_failed", "revoked"),
    (Cancelled(PROBLEM), "conversation.lock_skipped", "cancelled"),
    (Cancelled(PROBLEM, was_called=True), "conversation.lock_failed", "cancelled"),
    (Rejected(PROBLEM), "conversation.lock_failed", "rejected"),
    (Refused(PROBLEM), "conversation.lock_failed", "refused"),
    (Exhausted(PROBLEM), "conversation.lock_failed", "exhausted"),
    (Poisoned(PROBLEM), "conversation.lock_failed", "poisoned"),
]


def read(facts: Facts, outcome: Outcome) -> dict[str, Any]:
    """The event as a consumer reads it."""
    event: dict[str, Any] = json.loads(build(facts, outcome).body, parse_constant=pytest.fail)
    ResultEvent.model_validate(event | {"time": FACTS.finished_at, "data": event["data"] | {"error": None}})
    Draft202012Validator(ResultEvent.model_json_schema()).validate(event)
    return event


@pytest.mark.parametrize(("outcome", "event_type", "name"), OUTCOMES, ids=[name for *_, name in OUTCOMES])
def test_each_outcome_is_published_as_the_contract_says(outcome: Outcome, event_type: str, name: str) -> None:
    made = build(FACTS, outcome)
    locked, skipped = name == "locked", name == "would_lock"
    details = {"type": "server_error", "title": "The API failed", "status": 503, "detail": "The API answered 503."}
    assert json.loads(made.body) == {
        "specversion": "1.0",
        "id": "锁-1",
        "source": "/lock-worker",
        "type": event_type,
        "subject": "c-1",
        "time": "2026-11-22T15:04:06.123456Z",
        "datacontenttype": "application/json",
        "data": {
            "job_id": "锁-1",
            "outcome": name,
            "attempts": 3,
            "job": {"conversation_id": "c-1", "reason": None},
            "received_at": "2026-11-22T15:04:05.000000Z",
            "finished_at": "2026-11-22T15:04:06.123456Z",
            "conversation": CONVERSATION if locked else None,
            "error": None if locked or skipped else details,
        },
    }
    assert (made.id, made.outcome, made.failed) == ("锁-1", name, event_type == "conversation.lock_failed")
    assert made.problem is (None if locked or skipped else PROBLEM)


@pytest.mark.parametrize("outcome", [outcome for outcome, *_ in OUTCOMES], ids=[name for *_, name in OUTCOMES])
def test_every_event_fits_the_published_schema(outcome: Outcome) -> None:
    body = build(FACTS, outcome).body
    ResultEvent.model_validate_json(body)
    Draft202012Validator(ResultEvent.model_json_schema()).validate(json.loads(body))


@pytest.mark.parametrize("job_id", ["锁-1", 'a "quoted" \\ id', "</script>", "é" * 128])
def test_an_event_under_another_id_differs_in_nothing_else(job_id: str) -> None:
    made = build(replace(FACTS, id=job_id), Refused(PROBLEM))

    other = made.under("an id of its own")

    assert json.loads(other.body) == {**json.loads(made.body), "id": "an id of its own"}
    assert (made.id, other.id) == (job_id, "an id of its own")
    assert json.loads(other.body)["data"]["job_id"] == job_id
    assert other.under(job_id) == made


def test_no_outcome_is_left_out() -> None:
    assert {type(outcome) for outcome, *_ in OUTCOMES} == set(get_args(Outcome))


def test_what_is_not_known_is_left_out_or_null() -> None:
    event = read(replace(FACTS, subject=None, received_fields=None, attempts=0), Rejected(PROBLEM))
    assert "subject" not in event
    assert event["data"]["job"] is None
    assert "replay_of" not in event["data"]


@pytest.mark.parametrize("code", [0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x8FFFF, 0x10FFFE, 0x10FFFF], ids=hex)
def test_a_noncharacter_is_replaced_in_the_subject_alone(code: int) -> None:
    conversation_id = f"é{chr(code)}{chr(code)}\U0001f512"
    facts = replace(FACTS, subject=conversation_id, received_fields={"conversation_id": conversation_id})

    event = read(facts, Locked({"id": conversation_id, "locked": True}))

    assert event["subject"] == "é\ufffd\ufffd\U0001f512"
    assert event["data"]["job"] == {"conversation_id": conversation_id}
    assert event["data"]["conversation"]["id"] == conversation_id


@pytest.mark.parametrize("subject", ["c-1", "\ufdcf\ufdf0\ufffc\ufffd\U0001fffd\U00020000", "\u2028\ue000\u0378"])
def test_every_other_character_of_a_conversation_id_stays_in_the_subject(subject: str) -> None:
    assert read(replace(FACTS, subject=subject), WouldLock())["subject"] == subject


def test_a_job_id_holds_nothing_that_an_events_id_may_not() -> None:
    """``str.isprintable`` says no to what CloudEvents excludes: controls, noncharacters, lone surrogates."""
    excluded = [*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), *range(0xFDD0, 0xFDF0)]
    excluded += [plane << 16 | last for plane in range(17) for last in (0xFFFE, 0xFFFF)]

    assert [hex(code) for code in excluded if chr(code).isprintable()] == []


def told_within(conversation: dict[str, Any], max_bytes: int, **facts: Any) -> dict[str, Any]:
    """What a consumer reads of a lock where events are bounded."""
    body = build(replace(FACTS, **facts), Locked(conversation), max_bytes=max_bytes).body
    event: dict[str, Any] = json.loads(body)
    Draft202012Validator(ResultEvent.model_json_schema()).validate(event)
    return event


def test_a_conversation_that_is_too_large_is_reduced_to_its_state_and_marked_as_truncated() -> None:
    state = {"id": "c-1", "source": {"type": "ORDER", "id": "o-1"}, "locked": True, "createdAt": "x", "updatedAt": "y"}
    large = {**state, "lastMessage": {"body": "\N{LOCK}" * 100_000}, "userA": {}}

    data = told_within(large, 256 * 1024)["data"]

    assert (data["conversation"], data["truncated"]) == (state, True)
    assert (data["outcome"], data["error"]) == ("locked", None)


@pytest.mark.parametrize("field", ["source", "createdAt", "updatedAt"])
def test_a_state_that_is_too_large_itself_is_reduced_to_id_and_locked(field: str) -> None:
    data = told_within({"id": "c-1", "locked": True, field: "x" * 300_000}, 256 * 1024)["data"]

    assert (data["conversation"], data["truncated"]) == ({"id": "c-1", "locked": True}, True)


def test_the_numbers_of_a_reduced_conversation_keep_all_their_digits() -> None:
    source = b'"source":{"id":19.990000000000000001,"more":[1e400,1e-400]}'
    answer = answer_json.read(b'{"id":"c-1","locked":true,%s,"lastMessage":"%s"}' % (source, b"x" * 9_000), "c-1")

    body = build(FACTS, Locked(answer.value, answer.json), max_bytes=5_000).body

    assert source in body
    assert b'"truncated":true' in body


def test_an_event_exactly_as_large_as_the_bound_is_not_truncated() -> None:
    size = len(build(FACTS, Locked(CONVERSATION)).body)

    assert told_within(CONVERSATION, size) == read(FACTS, Locked(CONVERSATION))
    assert told_within(CONVERSATION, size - 1)["data"]["truncated"] is True
    assert "truncated" not in told_within(CONVERSATION, size)["data"]


@pytest.mark.parametrize("max_bytes", [1, 500, 5_000, 50_000])
@pytest.mark.parametrize("text", [0, 10, 1_000, 10_000, 1_000_000])
def test_an_event_is_within_the_bound_or_holds_nothing_that_could_be_left_out(text: int, max_bytes: int) -> None:
    conversation = {"id": "c-1", "locked": True, "source": "x" * (text // 100), "lastMessage": "x" * text}

    event = told_within(conversation, max_bytes)

    least = told_within({"id": "c-1", "locked": True}, 1)
    size = len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode())
    assert size <= max_bytes or event == least


def test_a_lone_surrogate_in_a_large_conversation_does_no_harm() -> None:
    data = told_within({"id": "c-1", "locked": True, "lastMessage": "x" * 300_000, "source": "\ud800"}, 1000)["data"]

    assert (data["conversation"]["id"], data["conversation"]["locked"]) == ("c-1", True)


def test_a_replayed_job_names_the_old_one() -> None:
    assert read(replace(FACTS, replay_of="old-1"), WouldLock())["data"]["replay_of"] == "old-1"


def test_every_kind_of_problem_has_a_title_of_its_own() -> None:
    assert set(TITLES) == set(ProblemType)
    assert len(set(TITLES.values())) == len(TITLES)


def conversation(value: Any) -> dict[str, Any]:
    """What a consumer reads of a conversation that holds this value."""
    told: dict[str, Any] = read(FACTS, Locked({"id": "c-1", "locked": True, "value": value}))["data"]["conversation"]
    return told


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(10**400, id="large integer"),
        pytest.param(-(2**63) - 1, id="beyond 64 bits"),
        pytest.param(1e308, id="large float"),
        pytest.param("\x00\u2028\N{SMILING FACE WITH SMILING EYES}", id="odd characters"),
        pytest.param([[[[{}]]]] * 3, id="nested"),
    ],
)
def test_whatever_the_api_sends_comes_back_unchanged(value: Any) -> None:
    assert conversation(value) == {"id": "c-1", "locked": True, "value": value}


def test_a_conversation_that_is_json_already_stands_in_the_event_as_it_is() -> None:
    written = b'{"id":"c-1","locked":true,"n":1.50,"conversation":null}'
    for echo in (None, {"conversation_id": "c-1", "metadata": {"conversation": None, "text": '"conversation":null'}}):
        body = build(
            replace(FACTS, received_fields=echo, replay_of='"conversation":null'), Locked(CONVERSATION, written)
        ).body
        assert body.count(written) == 1
        assert json.loads(body)["data"]["conversation"] == json.loads(written)
        assert json.loads(body)["data"]["job"] == echo


def test_a_number_in_a_jobs_metadata_comes_back_as_it_was_written() -> None:
    number = verbatim.read("19.990000000000000001")
    for outcome in (Locked(CONVERSATION), Locked(CONVERSATION, json.dumps(CONVERSATION).encode()), Refused(PROBLEM)):
        body = build(
            replace(FACTS, received_fields={"conversation_id": "c-1", "metadata": {"a": [{"n": number}]}}), outcome
        ).body
        assert b'"metadata":{"a":[{"n":19.990000000000000001}]}' in body


def test_an_event_carries_the_trace_of_its_job() -> None:
    assert "traceparent" not in read(FACTS, WouldLock())
    for state in (None, "a=1"):
        event = read(replace(FACTS, trace=Trace("a" * 32, "b" * 16, "01", state)), WouldLock())
        assert event["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01"
        assert event.get("tracestate") == state


def test_a_number_beyond_a_double_is_null_because_json_has_no_infinity() -> None:
    assert conversation(json.loads("[1e999, -1e999]")) == {"id": "c-1", "locked": True, "value": [None, None]}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param({"\udfff": ["\ud800", float("inf")]}, id="lone surrogate in a name"),
        pytest.param(json.loads("[" * 900 + "]" * 900), id="deep"),
    ],
)
def test_strict_readers_can_read_the_event_of_a_lock_even_if_they_cannot_read_its_conversation(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert conversation(value) == {"id": "c-1", "locked": True}
    assert caplog.messages == ["conversation_left_out"]
