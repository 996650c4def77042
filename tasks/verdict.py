"""Decides what an answer of the API means: locked, a final refusal, or worth another call.

All functions are pure. ``docs/failure-modes.md`` lists the statuses for operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from tasks.managem import answer_json
from tasks.managem.client import SUCCESS
from tasks.outcome import Locked, Problem, ProblemType, Refused
from tasks.retry_after import parse_date, parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tasks.managem.client import CallFailedError, Response


class Blame(Enum):
    """Whose fault a failed call is; that decides what holds back the next calls.

    ``WORKER``: an error of the worker in this job. ``RESOURCES``: the worker lacks what every call needs.
    """

    API = "api"
    NETWORK = "network"
    TOKEN = "token"  # noqa: S105 - a label, not a secret
    JOB = "job"
    WORKER = "worker"
    RESOURCES = "resources"


@dataclass(frozen=True, slots=True)
class Retryable:
    """The call may succeed another time.

    Attributes:
        problem: what went wrong.
        retry_after: the seconds that the API asked to wait; None: it named none.
        blame: whose fault it is.
        may_be_at_work: the answer was lost or late, so the API may still be working on the call.
    """

    problem: Problem
    retry_after: float | None = None
    blame: Blame = Blame.API
    may_be_at_work: bool = False


@dataclass(frozen=True, slots=True)
class Overloaded:
    """The API asks for fewer calls, which is no job's fault. ``retry_after`` as for :class:`Retryable`."""

    problem: Problem
    retry_after: float | None = None


Verdict: TypeAlias = Locked | Refused | Retryable | Overloaded

#: Statuses of a proxy or an API that gave up waiting: the API may still be working on the call.
_LATE = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
_RETRYABLE = {
    HTTPStatus.UNAUTHORIZED: (
        ProblemType.FORBIDDEN,
        (
            "The API does not accept the worker's token; check its rights where it serves other conversations, else "
            "renew API_TOKEN or API_TOKEN_FILE."
        ),
    ),
    HTTPStatus.REQUEST_TIMEOUT: (ProblemType.TIMEOUT, "The API gave up waiting for the request."),
    HTTPStatus.TOO_EARLY: (ProblemType.SERVER_ERROR, "The API was not ready for the request."),
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
    "no_resources": ProblemType.INTERNAL,
}
_DECISIVE = {"id", "locked"}
_REDIRECT_OR_CLIENT_ERROR = range(300, 500)
_SERVER_ERROR = range(500, 600)


def judge(
    answer: Response, conversation_id: str, *, now: Callable[[], datetime], may_be_at_work: bool = False
) -> Verdict:
    """Return what an answer means for its job.

    Args:
        answer: the answer.
        conversation_id: the job's conversation.
        now: returns the present time, for a ``Retry-After`` with a date in an answer without one.
        may_be_at_work: the API may still be working on an earlier call of this job.
    """
    retry_after = None
    if answer.retry_after is not None:  # reading dates is slow and seldom needed
        retry_after = parse_retry_after(answer.retry_after, parse_date(answer.date) or now())
    if answer.status in SUCCESS:
        return _confirmation(answer, conversation_id, retry_after)
    return (
        _overload(answer.status, retry_after)
        or _retryable(answer.status, retry_after, may_be_at_work)
        or _final(answer.status)
    )


def _overload(status: int, retry_after: float | None) -> Overloaded | None:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Overloaded(Problem(ProblemType.RATE_LIMITED, "The API asked for fewer calls.", status), retry_after)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after is not None:
        detail = "The API answered 503 and asked to be left alone for a while."
        return Overloaded(Problem(ProblemType.SERVER_ERROR, detail, status), retry_after)
    return None


def _retryable(status: int, retry_after: float | None, may_be_at_work: bool) -> Retryable | None:  # noqa: FBT001 - as for judge
    if status == HTTPStatus.CONFLICT and (retry_after is not None or may_be_at_work):
        detail = "The API answered 409: an earlier call of this job may still be at work."
        return Retryable(Problem(ProblemType.UNCONFIRMED, detail, status), retry_after, Blame.JOB, may_be_at_work)
    if status in _RETRYABLE:
        kind, detail = _RETRYABLE[HTTPStatus(status)]
        blame = Blame.TOKEN if status == HTTPStatus.UNAUTHORIZED else Blame.API
        return Retryable(Problem(kind, detail, status), retry_after, blame, status in _LATE)
    if status in _SERVER_ERROR:
        problem = Problem(ProblemType.SERVER_ERROR, f"The API answered {status}.", status)
        return Retryable(problem, retry_after, may_be_at_work=status in _LATE)
    if status not in _REDIRECT_OR_CLIENT_ERROR:
        detail = f"The API answered {status}, which is no final HTTP status."
        return Retryable(Problem(ProblemType.UNCONFIRMED, detail, status))
    return None


def _final(status: int) -> Refused:
    if status in _FINAL:
        kind, detail = _FINAL[HTTPStatus(status)]
        return Refused(Problem(kind, detail, status))
    detail = f"The API answered {status}"
    if status < HTTPStatus.BAD_REQUEST:
        detail += ", and redirects are not followed; check API_URL"
    return Refused(Problem(ProblemType.REFUSED, f"{detail}.", status))


def judge_failure(failure: CallFailedError) -> Retryable:
    """Return what a call without a usable answer means for its job."""
    problem = Problem(_CALL_FAILED[failure.kind], failure.detail, failure.status)
    if failure.kind == "no_resources":
        return Retryable(problem, blame=Blame.RESOURCES)
    if not failure.was_sent:
        return Retryable(problem, blame=Blame.NETWORK)
    return Retryable(problem, may_be_at_work=True)


def _confirmation(answer: Response, conversation_id: str, retry_after: float | None) -> Verdict:
    def unconfirmed(what: str) -> Retryable:
        detail = f"The API answered {answer.status}, but {what}."
        return Retryable(Problem(ProblemType.UNCONFIRMED, detail, answer.status), retry_after)

    try:
        body = answer_json.read(answer.body, conversation_id)
    except ValueError:
        return unconfirmed("its body is no JSON")
    said = body.value
    if not isinstance(said, dict):
        return unconfirmed("its body is no JSON object")
    if body.doubtful and not body.doubtful.isdisjoint(_DECISIVE):
        return unconfirmed("it says more than one thing of its id, or of whether it is locked")
    if said.get("id") != conversation_id:
        return unconfirmed("for another conversation, or for none")
    if said.get("locked") is not True:
        return unconfirmed("the conversation is not locked")
    return Locked(said, body.json, body.notes, body.is_verbatim)
