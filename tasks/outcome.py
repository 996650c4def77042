"""How a job can end: a small closed set of frozen types.

One place matches the set in full (``tasks.event``), and the type checker proves that none is missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


#: The name of an outcome in ``data.outcome`` of an event.
OutcomeName = Literal["locked", "would_lock", "expired", "revoked", "rejected", "refused", "exhausted", "poisoned"]


class ProblemType(StrEnum):
    """The kinds of problem that an event's ``error.type`` can name."""

    INVALID_JOB = "invalid_job"
    UNDECODABLE = "undecodable"
    UNKNOWN_TASK = "unknown_task"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    REFUSED = "refused"
    UNCONFIRMED = "unconfirmed"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
    REVOKED = "revoked"
    POISONED = "poisoned"
    INTERNAL = "internal"


#: What each type means, in a few words; the same for every occurrence (RFC 9457, section 3.1.3).
TITLES = {
    ProblemType.INVALID_JOB: "The job is not valid",
    ProblemType.UNDECODABLE: "The message cannot be read",
    ProblemType.UNKNOWN_TASK: "No such task",
    ProblemType.NOT_FOUND: "No such conversation",
    ProblemType.FORBIDDEN: "The API forbids it",
    ProblemType.REFUSED: "The API refused",
    ProblemType.UNCONFIRMED: "The API did not confirm the lock",
    ProblemType.RATE_LIMITED: "The API asked for fewer calls",
    ProblemType.SERVER_ERROR: "The API failed",
    ProblemType.UNREACHABLE: "The API could not be reached",
    ProblemType.TIMEOUT: "The API did not answer in time",
    ProblemType.EXPIRED: "The job expired",
    ProblemType.REVOKED: "The job was revoked",
    ProblemType.POISONED: "Workers died on the job",
    ProblemType.INTERNAL: "The worker failed",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem details (RFC 9457) of a job that was not locked.

    ``detail`` is for people: it names the field and the mend, and never holds a token or an upstream body. ``status``
    is the HTTP status, where there was one.
    """

    type: ProblemType
    detail: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Locked:
    """The API confirmed the lock.

    Attributes:
        conversation: what it answered.
        json: the same as JSON, where that was made already; None: it is still to be made of the conversation.
        notes: where the answer could not be kept as it came, for people.
        is_verbatim: it holds numbers that only ``tasks.verbatim`` writes as they came.
    """

    conversation: Mapping[str, Any]
    json: bytes | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    is_verbatim: bool = False


@dataclass(frozen=True, slots=True)
class WouldLock:
    """A dry run came as far as the call."""


@dataclass(frozen=True, slots=True)
class Expired:
    """``expires`` passed before an attempt."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Revoked:
    """Revoked through Celery; ``was_called``: a call was made by then, so the conversation may be locked."""

    problem: Problem
    was_called: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The message is no valid job; it was never called."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Refused:
    """The API's final no."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Exhausted:
    """All attempts are used up; the problem is the last one's."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Too many workers died on the job."""

    problem: Problem


Outcome: TypeAlias = Locked | WouldLock | Expired | Revoked | Rejected | Refused | Exhausted | Poisoned
