"""What an answer of the API means: the one table of what is locked, what is final and what is worth another try.

Everything here is pure. The statuses are those of ``docs/failure-modes`` and of the README's table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic_core import from_json

from tasks.outcome import Locked, Problem, ProblemType, Refused

if TYPE_CHECKING:
    from tasks.api import Answer, CallFailed


class Blame(Enum):
    """Whose fault a failed call is, and so what holds back the next ones."""

    API = "api"
    LOAD = "load"
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Retryable:
    """The call may succeed another time; ``retry_after`` is the header, verbatim."""

    problem: Problem
    retry_after: str | None = None
    blame: Blame = Blame.API


Verdict: TypeAlias = Locked | Refused | Retryable

_BLAME = {HTTPStatus.UNAUTHORIZED: Blame.TOKEN, HTTPStatus.TOO_MANY_REQUESTS: Blame.LOAD}
_RETRYABLE = {
    HTTPStatus.UNAUTHORIZED: (
        ProblemType.FORBIDDEN,
        "The API does not accept the worker's token; renew API_TOKEN or API_TOKEN_FILE.",
    ),
    HTTPStatus.REQUEST_TIMEOUT: (ProblemType.TIMEOUT, "The API gave up waiting for the request."),
    HTTPStatus.TOO_EARLY: (ProblemType.SERVER_ERROR, "The API was not ready for the request."),
    HTTPStatus.TOO_MANY_REQUESTS: (ProblemType.RATE_LIMITED, "The API asked for fewer calls."),
}
_FINAL = {
    HTTPStatus.FORBIDDEN: (
        ProblemType.FORBIDDEN,
        "The API forbids locking this conversation; check the token's rights.",
    ),
    HTTPStatus.NOT_FOUND: (ProblemType.NOT_FOUND, "The API knows no such conversation; check conversation_id."),
    HTTPStatus.GONE: (ProblemType.NOT_FOUND, "The conversation is gone."),
}
_CALL_FAILED = {
    "unreachable": ProblemType.UNREACHABLE,
    "timeout": ProblemType.TIMEOUT,
    "unusable": ProblemType.UNCONFIRMED,
}
_SUCCESS = range(200, 300)
_REDIRECT_OR_CLIENT_ERROR = range(300, 500)
_SERVER_ERROR = range(500, 600)


def judge(answer: Answer, conversation_id: str) -> Verdict:
    """What an answer means for a job."""
    status = answer.status
    if status in _SUCCESS:
        return _confirmation(answer, conversation_id)
    if status in _RETRYABLE:
        kind, detail = _RETRYABLE[HTTPStatus(status)]
        return Retryable(Problem(kind, detail, status), answer.retry_after, _BLAME.get(HTTPStatus(status), Blame.API))
    if status in _SERVER_ERROR:
        return Retryable(Problem(ProblemType.SERVER_ERROR, f"The API answered {status}.", status), answer.retry_after)
    if status in _FINAL:
        kind, detail = _FINAL[HTTPStatus(status)]
        return Refused(Problem(kind, detail, status))
    if status in _REDIRECT_OR_CLIENT_ERROR:
        detail = f"The API answered {status}"
        if status < HTTPStatus.BAD_REQUEST:
            detail += ", and redirects are not followed; check API_URL"
        return Refused(Problem(ProblemType.REFUSED, f"{detail}.", status))
    return Retryable(
        Problem(ProblemType.UNCONFIRMED, f"The API answered {status}, which is no final HTTP status.", status)
    )


def judge_failure(failure: CallFailed) -> Retryable:
    """What a call without a usable answer means for a job."""
    return Retryable(Problem(_CALL_FAILED[failure.kind], failure.detail, failure.status))


def _confirmation(answer: Answer, conversation_id: str) -> Verdict:
    def unconfirmed(what: str) -> Retryable:
        detail = f"The API answered {answer.status}, but {what}."
        return Retryable(Problem(ProblemType.UNCONFIRMED, detail, answer.status), answer.retry_after)

    try:
        body = _json(answer.body)
    except (ValueError, RecursionError):
        return unconfirmed("its body is no JSON")
    if not isinstance(body, dict):
        return unconfirmed("its body is no JSON object")
    if body.get("id") != conversation_id:
        return unconfirmed("for another conversation, or for none")
    if body.get("locked") is not True:
        return unconfirmed("the conversation is not locked")
    return Locked(body)


def _json(data: bytes) -> Any:
    """A body as JSON; what pydantic's fast reader will not take (half a surrogate pair, say), Python's may."""
    try:
        return from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return json.loads(data, parse_constant=_no_number)


def _no_number(name: str) -> None:
    """NaN and the infinities are no JSON (RFC 8259, section 6), though Python reads them."""
    raise ValueError(name)
