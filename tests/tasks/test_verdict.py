"""The table of answers: what is locked, what is final, and what is worth another try."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.managem.client import CallFailedError, Kind, Response
from tasks.outcome import Locked, Problem, ProblemType, Refused
from tasks.verdict import Blame, Overloaded, Retryable, Verdict, judge, judge_failure

ID = "c-1"
LOCKED = {"id": ID, "locked": True}
NOW = datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
IN_HALF_A_MINUTE = "Sun, 22 Nov 2026 15:04:35 GMT"

RETRIED = {
    401: ProblemType.FORBIDDEN,
    408: ProblemType.TIMEOUT,
    425: ProblemType.SERVER_ERROR,
    **dict.fromkeys(range(500, 600), ProblemType.SERVER_ERROR),
}
#: Whose fault a failure is, where it is not the API's.
BLAME = {401: Blame.TOKEN}
#: Answers after which the call may still be at work.
LATE = {408, 502, 504}
FINAL = {403: ProblemType.FORBIDDEN, 404: ProblemType.NOT_FOUND, 410: ProblemType.NOT_FOUND}


def judged(
    body: Any,
    status: int = 200,
    retry_after: str | None = None,
    *,
    date: str | None = None,
    may_be_at_work: bool = False,
) -> Verdict:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(Response(status, content, retry_after, date), ID, now=lambda: NOW, may_be_at_work=may_be_at_work)


def unconfirmed(body: Any, status: int = 200) -> Problem:
    """The problem of an answer that must have been judged as no confirmation."""
    verdict = judged(body, status)
    assert isinstance(verdict, Retryable), verdict
    assert (verdict.problem.type, verdict.problem.status) == (ProblemType.UNCONFIRMED, status)
    return verdict.problem


@pytest.mark.parametrize("status", [200, 201, 202, 203, 226, 299])
def test_any_2xx_with_the_conversation_locked_is_locked_and_keeps_all_that_came(status: int) -> None:
    body = {**LOCKED, "source": {"type": "NEW"}, "lockedBy": None}
    assert judged(body, status) == Locked(body)


@pytest.mark.parametrize("status", [200, 204, 205])
@pytest.mark.parametrize("body", [b"", b" ", b"<html>", b'{"id": "c-1", "locked": tru', b"\xff", b"{}{}"])
def test_a_2xx_without_json_is_unconfirmed(status: int, body: bytes) -> None:
    assert "no JSON" in unconfirmed(body, status).detail


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_only_python_reads_are_no_json(constant: str) -> None:
    assert "no JSON" in unconfirmed(f'{{"id": "c-1", "locked": true, "score": {constant}}}'.encode()).detail


@pytest.mark.parametrize("body", [[LOCKED], "locked", True, None, 1, []])
def test_a_2xx_with_other_json_than_an_object_is_unconfirmed(body: Any) -> None:
    assert "no JSON object" in unconfirmed(body).detail


@pytest.mark.parametrize("found", ["c-2", "C-1", "c-1 ", "", None, 1, ["c-1"], {"id": "c-1"}])
def test_a_2xx_for_another_conversation_is_unconfirmed(found: Any) -> None:
    assert "another conversation" in unconfirmed({"id": found, "locked": True}).detail
    assert "another conversation" in unconfirmed({"locked": True}).detail


@pytest.mark.parametrize(
    "said",
    [
        b'"id":"c-1","locked":false,"locked":true',
        b'"id":"c-1","locked":true,"locked":false',
        b'"id":"c-2","id":"c-1","locked":true',
    ],
)
def test_a_2xx_with_two_values_for_one_field_is_unconfirmed(said: bytes) -> None:
    assert "more than one thing" in unconfirmed(b"{%s}" % said).detail


def test_a_2xx_that_names_another_conversation_last_is_unconfirmed() -> None:
    unconfirmed(b'{"id":"c-1","id":"c-2","locked":true}')


def test_a_2xx_that_says_the_same_twice_is_locked() -> None:
    assert isinstance(judged(b'{"id":"c-1","id":"c-1","locked":true,"locked":true}'), Locked)


def test_a_confirmation_with_half_a_character_in_it_is_locked_and_notes_where() -> None:
    verdict = judged(b'{"id":"c-1","locked":true,"userB":{"username":"Jo \\ud83d"}}')
    assert isinstance(verdict, Locked)
    assert verdict.conversation == {**LOCKED, "userB": {"username": "Jo \ufffd"}}
    assert verdict.notes == ("userB.username: held half a character, told as U+FFFD",)


@pytest.mark.parametrize("found", [False, None, "true", 1, [], {}])
def test_a_2xx_that_does_not_say_locked_is_unconfirmed(found: Any) -> None:
    assert "not locked" in unconfirmed({"id": ID, "locked": found}).detail
    assert "not locked" in unconfirmed({"id": ID}).detail


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 10_000])
def test_json_that_cannot_be_read_is_unconfirmed_and_no_error(body: bytes) -> None:
    unconfirmed(body)


def test_no_problem_quotes_what_the_api_sent() -> None:
    for body in (b"SECRET", {"id": "SECRET", "locked": True}, {"id": ID, "locked": "SECRET"}, ["SECRET"]):
        assert "SECRET" not in unconfirmed(body).detail


@pytest.mark.parametrize("status", sorted(RETRIED.keys() - {503}))
def test_an_answer_that_another_call_may_change_is_retried_with_its_retry_after(status: int) -> None:
    verdict = judged(LOCKED, status, retry_after="7")
    assert isinstance(verdict, Retryable)
    assert (verdict.problem.type, verdict.problem.status) == (RETRIED[status], status)
    assert verdict.retry_after == 7
    assert verdict.problem.detail
    assert verdict.blame is BLAME.get(status, Blame.API)
    assert verdict.may_be_at_work is (status in LATE)


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [(429, None, None), (429, "soon", None), (429, "0", 0.0), (429, "7", 7.0), (503, "0", 0.0), (503, "2.5", 2.5)],
)
def test_429_and_503_with_a_retry_after_ask_for_fewer_calls(
    status: int, retry_after: str | None, seconds: float | None
) -> None:
    verdict = judged(b"", status, retry_after)
    assert isinstance(verdict, Overloaded)
    assert verdict.retry_after == seconds
    kind = ProblemType.RATE_LIMITED if status == 429 else ProblemType.SERVER_ERROR
    assert (verdict.problem.type, verdict.problem.status) == (kind, status)


@pytest.mark.parametrize("retry_after", [None, "", "soon", "-1", "NaN"])
def test_a_503_that_names_no_time_is_a_failure_like_any_5xx(retry_after: str | None) -> None:
    verdict = judged(b"", 503, retry_after)
    assert isinstance(verdict, Retryable)
    assert (verdict.blame, verdict.retry_after) == (Blame.API, None)


def test_a_date_to_wait_for_is_read_by_the_hosts_own_clock_whatever_ours_says() -> None:
    an_hour_ahead, an_hour_ago = "Sun, 22 Nov 2026 16:04:05 GMT", "Sun, 22 Nov 2026 14:04:05 GMT"
    for date, retry_after in [
        (an_hour_ahead, "Sun, 22 Nov 2026 16:04:35 GMT"), (an_hour_ago, "Sun, 22 Nov 2026 14:04:35 GMT"),
        (None, IN_HALF_A_MINUTE), ("no date", IN_HALF_A_MINUTE),
    ]:  # fmt: skip
        verdict = judged(b"", 429, retry_after, date=date)
        assert isinstance(verdict, Overloaded)
        assert verdict.retry_after == 30


def test_a_409_is_tried_again_while_an_earlier_call_may_be_at_work_or_where_it_asks_for_that() -> None:
    for verdict in (judged(b"", 409, may_be_at_work=True), judged(b"", 409, "2")):
        assert isinstance(verdict, Retryable)
        assert (verdict.problem.type, verdict.blame) == (ProblemType.UNCONFIRMED, Blame.JOB)
    assert isinstance(judged(b"", 409), Refused)
    assert isinstance(judged(b"", 409, "soon"), Refused)


def test_a_refused_token_names_the_settings_to_fix() -> None:
    verdict = judged(b"", 401)
    assert isinstance(verdict, Retryable)
    assert "API_TOKEN or API_TOKEN_FILE" in verdict.problem.detail


@pytest.mark.parametrize("status", sorted(set(range(300, 500)) - RETRIED.keys() - {429}))
def test_every_other_3xx_and_4xx_is_final(status: int) -> None:
    verdict = judged(LOCKED, status, retry_after=None if status == 409 else "7")
    assert isinstance(verdict, Refused)
    assert (verdict.problem.type, verdict.problem.status) == (FINAL.get(status, ProblemType.REFUSED), status)
    assert verdict.problem.detail


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_the_setting_to_fix(status: int) -> None:
    verdict = judged(b"", status)
    assert isinstance(verdict, Refused)
    assert "API_URL" in verdict.problem.detail


@pytest.mark.parametrize("status", [0, 99, 100, 199, 600, 999])
def test_what_is_no_final_status_is_unconfirmed(status: int) -> None:
    unconfirmed(LOCKED, status)


def test_an_unconfirmed_answer_keeps_its_retry_after_too() -> None:
    verdict = judged({"id": ID, "locked": False}, 202, retry_after="3")
    assert isinstance(verdict, Retryable)
    assert verdict.retry_after == 3


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("unreachable", ProblemType.UNREACHABLE),
        ("timeout", ProblemType.TIMEOUT),
        ("unusable", ProblemType.UNCONFIRMED),
    ],
)
@pytest.mark.parametrize("status", [None, 200])
def test_a_call_without_a_usable_answer_is_retried(kind: Kind, problem: ProblemType, status: int | None) -> None:
    verdict = judge_failure(CallFailedError(kind, "It broke.", status))
    assert verdict == Retryable(Problem(problem, "It broke.", status), None, Blame.API, may_be_at_work=True)


def test_a_call_that_found_no_connection_is_the_networks_fault_and_left_nothing_at_work() -> None:
    verdict = judge_failure(CallFailedError("unreachable", "Refused.", was_sent=False))
    assert verdict == Retryable(Problem(ProblemType.UNREACHABLE, "Refused."), None, Blame.NETWORK)


def test_a_resource_that_the_worker_lacks_is_neither_the_apis_fault_nor_the_networks() -> None:
    verdict = judge_failure(CallFailedError("no_resources", "No file descriptor.", was_sent=False))
    assert verdict == Retryable(Problem(ProblemType.INTERNAL, "No file descriptor."), None, Blame.RESOURCES)


@settings(deadline=None)
@given(st.integers(100, 599), st.binary(max_size=200) | st.builds(lambda text: text.encode(), st.text()))
def test_every_answer_is_judged(status: int, body: bytes) -> None:
    assert isinstance(judged(body, status), Locked | Refused | Retryable | Overloaded)
