"""What a job's id stands for: claimed before the job's first call, so that duplicates and cancelled ids are found."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from worker.broker.records import ClaimAnswer
from worker.runtime import job_ids
from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.broker.job_moves import JobMoves
    from worker.broker.records import Claim, Delivery
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.in_flight import Assignment


class IdClaims:
    """Claims the ids of jobs.

    Args:
        moves: returns the moves of a queue.
        controls: knows who cancelled an id.
    """

    def __init__(self, moves: Callable[[str], JobMoves], controls: ControlWatch) -> None:
        self._moves = moves
        self._controls = controls

    async def claim(self, queue: str, assignments: Sequence[Assignment]) -> list[tuple[Assignment, ClaimAnswer]]:
        """Return each job with the answer about its id. A job whose id is cancelled has then the note of who did it."""
        claims = [(assignment, job_ids.to_claim(assignment.parsed)) for assignment in assignments]
        unasked = [
            claim
            for assignment, claim in claims
            if claim is not None and _known_answer(assignment.delivery, claim) is None
        ]
        ask = partial(self._moves(queue).claim, unasked)
        answers = iter(await retry_forever("claim", ask, queue=queue) if unasked else ())
        answered: list[tuple[Assignment, ClaimAnswer]] = []
        for assignment, claim in claims:
            answer = ClaimAnswer.GO if claim is None else _known_answer(assignment.delivery, claim)
            answered.append((assignment, next(answers) if answer is None else answer))
        await self._note_cancelled(answered)
        return answered

    async def _note_cancelled(self, answered: Sequence[tuple[Assignment, ClaimAnswer]]) -> None:
        cancelled = [assignment for assignment, answer in answered if answer is ClaimAnswer.CANCELLED]
        if cancelled:
            notes = await self._controls.notes_of([assignment.parsed.id for assignment in cancelled])
            for assignment in cancelled:
                assignment.cancel_note = notes.get(assignment.parsed.id)


def _known_answer(delivery: Delivery, claim: Claim) -> ClaimAnswer | None:
    """Return what the server answered about the id along with the take; None: another id, or none, was claimed then."""
    if delivery.claimed is None or delivery.claimed[0] != claim:
        return None
    return ClaimAnswer(delivery.claimed[1])
