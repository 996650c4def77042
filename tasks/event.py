"""Builds the result event, CloudEvents 1.0 JSON in structured mode, from a job and its outcome.

The models are the published schema. :func:`build` makes the same shape from plain values, because it runs once per job;
a test compares the two. Building and encoding never fail, whatever a message or an answer holds.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, assert_never

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError, to_json

from tasks import verbatim
from tasks.history import MAX_ENTRIES
from tasks.managem.conversation import LockedConversation, view
from tasks.outcome import (
    TITLES,
    Cancelled,
    Exhausted,
    Expired,
    Locked,
    OutcomeName,
    Poisoned,
    Problem,
    ProblemType,
    Refused,
    Rejected,
    Revoked,
    WouldLock,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.history import History
    from tasks.outcome import Outcome
    from tasks.trace import Trace

logger = logging.getLogger(__name__)

SOURCE = "/lock-worker"
#: Unicode's noncharacters, which no attribute of a CloudEvent may hold. It may not hold control characters or lone
#: surrogates either, but no conversation id has those, and a job id has only printable characters.
_NONCHARACTER = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)) + "]"
)
MAX_RECEIVED_BYTES = 16 * 1024
#: A larger event contains less of its conversation (RESULT_MAX_BYTES).
MAX_EVENT_BYTES = 256 * 1024

EventType = Literal["conversation.locked", "conversation.lock_skipped", "conversation.lock_failed"]


class ProblemDetails(BaseModel):
    """Why the conversation was not locked (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: ProblemType
    title: str
    status: int | None = Field(description="The HTTP status, if there was one.")
    detail: str = Field(description="For people: names the field and the fix.")


class HistoryStep(BaseModel):
    """One call of the job, or one delay without a call."""

    model_config = ConfigDict(extra="forbid")

    time: AwareDatetime = Field(description="When it began.")
    what: Literal["call", "delay"]
    status: int | None = Field(description="The HTTP status of a call, if it was answered.")
    error: ProblemType | None = Field(description="What went wrong with a call; null if nothing did.")
    reason: str | None = Field(
        description="Why the job was delayed: eta or hold; interrupted for a call that its worker gave up, of which "
        "nobody knows what came of it."
    )
    wait_seconds: float | None = Field(
        ge=0, description="How long the job was to wait then; null if not at all, or if that was not known."
    )


class ResultData(BaseModel):
    """The result of the job."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(min_length=1, description="The job id.")
    outcome: OutcomeName
    attempts: int = Field(ge=0, description="The number of calls made.")
    job: dict[str, Any] | None = Field(
        description="The job as received; of a rejected message what was understood, or null."
    )
    received_at: AwareDatetime = Field(description="When a worker first took the job.")
    finished_at: AwareDatetime
    conversation: LockedConversation | None = Field(description="As the API returned it, unknown fields kept.")
    error: ProblemDetails | None
    history: list[HistoryStep] | None = Field(
        None,
        max_length=MAX_ENTRIES,
        description="The calls and delays, the oldest first: the last ten of a job that had more. Left out where there "
        "is no more to tell than one call that locked the conversation.",
    )
    replay_of: str | None = Field(
        None, description="The id of the job that this one repeats, where it was replayed from the dead letters."
    )
    truncated: Literal[True] | None = Field(
        None,
        description="True where the event would be larger than RESULT_MAX_BYTES: the conversation is reduced to its "
        "state (id, source, locked, createdAt, updatedAt), or, where that is too large too, to id and locked.",
    )


class ResultEvent(BaseModel):
    """One job's result: a CloudEvents 1.0 event in structured JSON mode."""

    model_config = ConfigDict(extra="forbid")

    specversion: Literal["1.0"]
    id: str = Field(
        min_length=1,
        description="With source it names this event alone: the job id, or, where that names another event already, an "
        "id of its own.",
    )
    source: str = Field(
        min_length=1,
        description="EVENT_SOURCE, a URI-reference: which environment the event is of.",
        json_schema_extra={"format": "uri-reference"},
    )
    type: EventType
    subject: str = Field(
        "",
        description="The conversation id, with U+FFFD in place of noncharacters, which CloudEvents excludes; left out "
        "when the message held no usable one.",
    )
    time: AwareDatetime
    datacontenttype: Literal["application/json"]
    traceparent: str = Field(
        "",
        pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$",
        description="W3C trace context: the job's trace, the producer's where it named one.",
    )
    tracestate: str = Field("", description="What the producer sent beside its traceparent.")
    data: ResultData


@dataclass(frozen=True, slots=True)
class Event:
    """The encoded event of a finished job, with what the worker needs to know of it.

    ``failed`` events also become dead letters.
    """

    id: str
    outcome: OutcomeName
    failed: bool
    problem: Problem | None
    body: bytes

    def under(self, event_id: str) -> Event:
        """Return the same event with another id, for a job id that names another event already."""
        return replace(self, id=event_id, body=_beginning(event_id) + self.body.removeprefix(_beginning(self.id)))


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a job's run that do not depend on its outcome. Times are of the Redis server's clock.

    ``id`` is the job id, ``trace`` the job's trace if it is known, ``source`` the worker's EVENT_SOURCE, and
    ``history`` what ``tasks.progress`` keeps.
    """

    id: str
    subject: str | None
    received_fields: Mapping[str, Any] | None
    replay_of: str | None
    received_at: datetime
    finished_at: datetime
    attempts: int
    trace: Trace | None = None
    source: str = SOURCE
    history: History = ()


def build(facts: Facts, outcome: Outcome, *, max_bytes: int = MAX_EVENT_BYTES) -> Event:
    """Return the result event of a job. Never raises.

    An event of more than ``max_bytes`` contains less of its conversation, and says so; all else in it is bounded.
    """
    event_type, name, conversation, problem = _describe(outcome)
    conversation_json = outcome.json if isinstance(outcome, Locked) else None
    finished_at = _timestamp(facts.finished_at)
    data = {
        "job_id": facts.id,
        "outcome": name,
        "attempts": facts.attempts,
        "job": facts.received_fields,
        "received_at": _timestamp(facts.received_at),
        "finished_at": finished_at,
        "conversation": conversation if conversation_json is None else None,
        "error": None if problem is None else _details(problem),
    }
    if facts.history:
        data["history"] = [entry.as_fields() for entry in facts.history]
    if facts.replay_of is not None:
        data["replay_of"] = facts.replay_of
    event: dict[str, Any] = {"specversion": "1.0", "id": facts.id, "source": facts.source, "type": event_type}
    if facts.subject is not None:
        event["subject"] = facts.subject if facts.subject.isascii() else _NONCHARACTER.sub("\ufffd", facts.subject)
    event["time"] = finished_at
    event["datacontenttype"] = "application/json"
    if facts.trace is not None:
        event["traceparent"] = facts.trace.traceparent
        if facts.trace.state is not None:
            event["tracestate"] = facts.trace.state
    event["data"] = data
    body = _encode(event)
    if conversation_json is not None:
        body = _with_conversation(body, conversation_json)
    if conversation is not None and len(body) > max_bytes:
        body = _encode_truncated(event, conversation, max_bytes)
    return Event(id=facts.id, outcome=name, failed=event_type == "conversation.lock_failed", problem=problem, body=body)


def _describe(  # noqa: PLR0911 - one line an outcome
    outcome: Outcome,
) -> tuple[EventType, OutcomeName, Mapping[str, Any] | None, Problem | None]:
    match outcome:
        case Locked(conversation):
            return "conversation.locked", "locked", conversation, None
        case WouldLock():
            return "conversation.lock_skipped", "would_lock", None, None
        case Expired(problem):
            return "conversation.lock_skipped", "expired", None, problem
        case Revoked(problem, was_called):
            return "conversation.lock_failed" if was_called else "conversation.lock_skipped", "revoked", None, problem
        case Cancelled(problem, was_called):
            return "conversation.lock_failed" if was_called else "conversation.lock_skipped", "cancelled", None, problem
        case Rejected(problem):
            return "conversation.lock_failed", "rejected", None, problem
        case Refused(problem):
            return "conversation.lock_failed", "refused", None, problem
        case Exhausted(problem):
            return "conversation.lock_failed", "exhausted", None, problem
        case Poisoned(problem):
            return "conversation.lock_failed", "poisoned", None, problem
        case _:
            assert_never(outcome)


def _details(problem: Problem) -> dict[str, Any]:
    return {
        "type": problem.type.value,
        "title": TITLES[problem.type],
        "status": problem.status,
        "detail": problem.detail,
    }


def _timestamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _beginning(event_id: str) -> bytes:
    """Return the beginning of an event's JSON, up to its id."""
    return to_json({"specversion": "1.0", "id": event_id}).removesuffix(b"}")


def _with_conversation(body: bytes, conversation: bytes) -> bytes:
    """Return the event with a conversation that is JSON already, in place of null."""
    # The last occurrence of these bytes: behind it there are only texts, in which quotes are escaped.
    before, _, after = body.rpartition(b'"conversation":null')
    return b'%s"conversation":%s%s' % (before, conversation, after)


def _encode_truncated(event: Mapping[str, Any], conversation: Mapping[str, Any], max_bytes: int) -> bytes:
    """Return the event with its conversation reduced to its state, or to the lock alone if that is too large too."""

    def encode(part: Mapping[str, Any]) -> bytes:
        return _encode({**event, "data": {**event["data"], "conversation": part, "truncated": True}})

    body = encode(view(conversation, "state"))
    return body if len(body) <= max_bytes else encode(_lock_alone(conversation))


def _lock_alone(conversation: Mapping[str, Any]) -> dict[str, Any]:
    return {name: conversation[name] for name in ("id", "locked")}


def _encode(event: Mapping[str, Any]) -> bytes:
    data = event["data"]
    try:
        if verbatim.are_in((data["job"], data["conversation"])):
            return verbatim.encode(event)
        return to_json(event, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError, RecursionError):
        # An answer read by tasks.managem.answer_json never fails. A conversation from another reader may hold what
        # strict readers of JSON refuse. The event must still say that it is locked, and every consumer must read it.
        logger.warning("conversation_left_out", extra={"job": data["job_id"]})
        return to_json(
            {**event, "data": {**data, "conversation": _lock_alone(data["conversation"])}}, inf_nan_mode="null"
        )
