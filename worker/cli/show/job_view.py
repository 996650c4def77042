"""What is known of one job: the places where it is, the events of its ends, and what its id stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from tasks.history import History
    from tasks.outcome import Problem
    from worker.cli.result import Result
    from worker.message.controls import Control, Note

State: TypeAlias = Literal["ready", "in_flight", "delayed", "held", "ended", "unknown"]
#: Where a job is, if several messages have its id: the first of these.
_MOST_TELLING: tuple[State, ...] = ("in_flight", "delayed", "held", "ready")


@dataclass(frozen=True, slots=True)
class Place:
    """A message of a job that has not ended. Times are in milliseconds of the server's clock.

    Attributes:
        state: where it is.
        queue: its queue.
        where: the list or index that it is in, as ``lock-worker status`` names it.
        ref: its record's name; None: no worker has taken it yet.
        conversation_id: its conversation; None: the message names none.
        rule_id: the rule that fired; None: the message names none.
        received_ms: the time of its first take; None: not yet.
        due_ms: the time it waits for; None: none.
        lease_ms: when its lease expires; None: no worker has it.
        held_ms: since when it is held; None: it is not, or that is not known.
        hold: the hold that has set it aside; None: none has, or it is ended and the job goes on in a moment.
        worker: the worker that has it, by its name in Redis.
        problem: the problem of its last failed call.
        is_dry_run: it is a dry run.
    """

    state: State
    queue: str
    where: str
    ref: str | None = None
    conversation_id: str | None = None
    rule_id: str | None = None
    attempts: int = 0
    crashes: int = 0
    received_ms: int | None = None
    due_ms: int | None = None
    lease_ms: int | None = None
    held_ms: int | None = None
    hold: Control | None = None
    worker: str | None = None
    problem: Problem | None = None
    history: History = ()
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """An event of a job, with its entry in the results, in the dead letters or in both; the letter names its queue."""

    event: dict[str, Any] = field(repr=False)
    result: Result = field(repr=False)
    entry: str | None = None
    letter: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the id memory says of a job id: it was claimed by a worker, or it ended, with this outcome."""

    is_claimed: bool
    outcome: str | None


@dataclass(slots=True)
class JobView:
    """One job.

    Attributes:
        job_id: its id; None: its message has none.
        places: its messages that have not ended.
        ends: its events, the newest first; more than one only if the id was used more than once.
        remembered: what the id memory says; None: nothing, or it was not asked.
        cancel: who cancelled its id, or revoked it, and why; None: nobody did.
    """

    job_id: str | None
    places: list[Place] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    remembered: Remembered | None = None
    cancel: Note | None = None

    @property
    def place(self) -> Place | None:
        """Where it is now; None: nowhere."""
        return min(self.places, key=lambda place: _MOST_TELLING.index(place.state), default=None)

    @property
    def end(self) -> End | None:
        """Its newest event."""
        return self.ends[0] if self.ends else None

    @property
    def state(self) -> State:
        """Its state now."""
        if self.place is not None:
            return self.place.state
        has_ended = self.remembered is not None and self.remembered.outcome is not None
        return "ended" if self.ends or has_ended else "unknown"

    @property
    def conversation_id(self) -> str | None:
        """Its conversation; None: it names none, or that is not known."""
        if self.place is not None:
            return self.place.conversation_id
        if self.end is not None:
            result = self.end.result
            return result.job_conversation_id or result.conversation_id or None
        return None
