"""What a job's next delivery must know of what happened so far; stored in the job's record while it waits in Redis.

If the record holds anything else, the job goes on with nothing known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks import history as histories
from tasks.outcome import Problem, ProblemType

if TYPE_CHECKING:
    from tasks.history import History


@dataclass(slots=True)
class Progress:
    """The calls of a job so far, apart from their number.

    Attributes:
        problem: the problem of the last failed call.
        may_be_at_work: the answer of a call was lost or late, so that call may still be at work.
        load_refusals: calls that the API refused for load.
        token_refusals: calls refused for the token (401) that are not counted as attempts yet.
        answered: the fleet's answered calls at the last failure of this job; None: it has not failed.
        faults: its failures with other calls answered since the failure before.
        deliveries: those that did not end with their worker, this one included; counted only while jobs are traced.
        history: the last calls and delays. One call that locked the conversation at once is not noted.
    """

    problem: Problem | None = None
    may_be_at_work: bool = False
    load_refusals: int = 0
    token_refusals: int = 0
    answered: int | None = None
    faults: int = 0
    deliveries: int = 0
    history: History = ()

    @property
    def knows_calls(self) -> bool:
        """Whether anything is known of calls."""
        return any(self._of_calls()) or self.answered is not None

    def _of_calls(self) -> list[Any]:
        problem = None if self.problem is None else [self.problem.type.value, self.problem.detail, self.problem.status]
        return [
            problem,
            int(self.may_be_at_work),
            self.load_refusals,
            self.token_refusals,
            self.answered,
            self.faults,
        ]

    def to_bytes(self) -> bytes:
        """Return the text for the record; empty if there is nothing to know."""
        fields = self._of_calls()
        if self.deliveries or self.history:
            fields.append(self.deliveries)
        if self.history:
            fields.append(histories.to_stored(self.history))
        return json.dumps(fields, separators=(",", ":")).encode() if any(fields) or self.answered is not None else b""


def from_bytes(text: bytes) -> Progress:
    """Read a text of :meth:`Progress.to_bytes`. Never raises: any other text means nothing known."""
    if not text:
        return Progress()
    try:
        problem, may_be_at_work, load_refusals, token_refusals, answered, faults, *more = json.loads(text)
        return Progress(
            problem=None if problem is None else _problem(*problem),
            may_be_at_work=bool(may_be_at_work),
            load_refusals=int(load_refusals),
            token_refusals=int(token_refusals),
            answered=None if answered is None else int(answered),
            faults=int(faults),
            deliveries=int(more[0]) if more else 0,
            history=histories.from_stored(more[1]) if len(more) > 1 else (),
        )
    except (ValueError, TypeError, OverflowError, RecursionError):
        return Progress()


def _problem(kind: str, detail: str, status: int | None) -> Problem:
    return Problem(ProblemType(kind), str(detail), None if status is None else int(status))
