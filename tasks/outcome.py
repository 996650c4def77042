"""The outcomes of a job: a small closed set of frozen types.

``tasks.event`` matches all of them, and the type checker proves that none is missing there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


#: The name of an outcome in ``data.outcome`` of an event.
OutcomeName = Literal[
    "locked", "would_lock", "expired", "revoked", "cancelled", "rejected", "refused", "exhausted", "poisoned"
]


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
    CANCELLED = "cancelled"
    POISONED = "poisoned"
    INTERNAL = "internal"


#: The meaning of each type in a few words, the same for every occurrence (RFC 9457, section 3.1.3).
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
    ProblemType.CANCELLED: "The job was cancelled",
    ProblemType.POISONED: "Workers died on the job",
    ProblemType.INTERNAL: "The worker failed",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem details (RFC 9457) of a job whose conversation was not locked.

    ``detail`` is for people: it names the field and the fix, and never contains a token or a body of the API.
    ``status`` is the HTTP status, if there was one.
    """

    type: ProblemType
    detail: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Locked:
    """The API confirmed the lock.

    Attributes:
        conversation: the API's answer.
        json: the answer as JSON text; None: the event has to encode ``conversation``.
        notes: where the answer could not be kept unchanged, for people.
        is_verbatim: it holds numbers that only ``tasks.verbatim`` writes unchanged.
    """

    conversation: Mapping[str, Any]
    json: bytes | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    is_verbatim: bool = False


@dataclass(frozen=True, slots=True)
class WouldLock:
    """A dry run reached the point of the call, and made none."""


@dataclass(frozen=True, slots=True)
class Expired:
    """``expires`` passed before an attempt."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Revoked:
    """Revoked through Celery; ``was_called``: a call was made before, so the conversation may be locked."""

    problem: Problem
    was_called: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Cancelled by an operator; ``was_called``: a call was made before, so the conversation may be locked."""

    problem: Problem
    was_called: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The message is no valid job; no call was made."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Refused:
    """The API refused the lock, and another call would not change that."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Exhausted:
    """All attempts are used up; the problem is the last one's."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Too many workers died on the job."""

    problem: Problem


Outcome: TypeAlias = Locked | WouldLock | Expired | Revoked | Cancelled | Rejected | Refused | Exhausted | Poisoned
