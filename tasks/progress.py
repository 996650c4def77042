"""What a job's next delivery must know of its calls so far: kept in its record while it waits in Redis.

Read with care: whatever stands there instead, the job goes on, with nothing known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tasks.outcome import Problem, ProblemType


@dataclass(slots=True)
class Progress:
    """The calls of a job so far, beside their number.

    Attributes:
        problem: of the last call that failed.
        may_be_at_work: the answer of a call was lost or late, so that call may still be at work.
        load_refusals: calls that the API refused for load.
        token_refusals: calls that were refused for the token (401) and not counted yet.
        answered: calls that the API had answered for the fleet when one of this job failed last; None: none did.
        faults: calls that failed although others were answered since the failure before.
    """

    problem: Problem | None = None
    may_be_at_work: bool = False
    load_refusals: int = 0
    token_refusals: int = 0
    answered: int | None = None
    faults: int = 0

    def to_bytes(self) -> bytes:
        """As it stands in the record; empty where there is nothing to know."""
        problem = None if self.problem is None else [self.problem.type.value, self.problem.detail, self.problem.status]
        found = [problem, int(self.may_be_at_work), self.load_refusals, self.token_refusals, self.answered, self.faults]
        return json.dumps(found, separators=(",", ":")).encode() if any(found) or self.answered is not None else b""


def from_bytes(text: bytes) -> Progress:
    """Read what :meth:`Progress.to_bytes` wrote. Never raises."""
    if not text:
        return Progress()
    try:
        problem, may_be_at_work, load_refusals, token_refusals, answered, faults = json.loads(text)
        return Progress(
            problem=None if problem is None else _problem(*problem),
            may_be_at_work=bool(may_be_at_work),
            load_refusals=int(load_refusals),
            token_refusals=int(token_refusals),
            answered=None if answered is None else int(answered),
            faults=int(faults),
        )
    except (ValueError, TypeError, OverflowError, RecursionError):
        return Progress()


def _problem(kind: str, detail: str, status: int | None) -> Problem:
    return Problem(ProblemType(kind), str(detail), None if status is None else int(status))
