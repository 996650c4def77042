"""Makes the events with which jobs end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks import event
from tasks.decision import Finished
from tasks.outcome import Cancelled, Poisoned, Problem, ProblemType, Rejected, Revoked
from tasks.run import trace_of

if TYPE_CHECKING:
    from tasks.message import ParsedJob, Rejection
    from tasks.outcome import Outcome
    from tasks.run import Run

_CANCELLED_AFTER_A_CALL = "(A call for it had been made by then or was under way: the conversation may be locked.)"
_REVOKED_AFTER_A_CALL = (
    "The job was revoked when a call for it had been made or was under way: the conversation may be locked. "
    "Look at the conversation before you send the job again."
)


class Reporter:
    """Ends jobs: each method returns the decision that carries the job's event.

    Args:
        max_event_bytes: a larger event contains less of its conversation.
        source: what the events name as their source.
    """

    def __init__(self, *, max_event_bytes: int = event.MAX_EVENT_BYTES, source: str = event.SOURCE) -> None:
        self._max_event_bytes = max_event_bytes
        self._source = source

    def report(self, job: ParsedJob, run: Run, outcome: Outcome) -> Finished:
        """End a job with this outcome."""
        facts = event.Facts(
            id=job.id,
            subject=job.subject,
            received_fields=job.received_fields,
            replay_of=job.replay_of,
            received_at=run.received_at,
            finished_at=run.clock(),
            attempts=run.attempts,
            trace=trace_of(job, run).of_event(),
            source=self._source,
            history=run.progress.history,
        )
        return Finished(event.build(facts, outcome, max_bytes=self._max_event_bytes))

    def rejected(self, rejection: Rejection, run: Run) -> Finished:
        """End a message that is no valid job."""
        return self.report(rejection, run, Rejected(rejection.problem))

    def conflicting(self, job: ParsedJob, run: Run) -> Finished:
        """End a job whose id stands for another conversation."""
        detail = "The job id was used for another conversation a short while ago; give every job an id of its own."
        return self.report(job, run, Rejected(Problem(ProblemType.INVALID_JOB, detail)))

    def revoked(self, job: ParsedJob, run: Run) -> Finished:
        """End a job that was revoked through Celery: a call made before that may have locked the conversation."""
        detail = _REVOKED_AFTER_A_CALL if run.was_called else "The job was revoked before it was called."
        return self.report(job, run, Revoked(Problem(ProblemType.REVOKED, detail), was_called=run.was_called))

    def cancelled(self, job: ParsedJob, run: Run, *, by: str, why: str) -> Finished:
        """End a job that an operator cancelled: a call made before that may have locked the conversation.

        Args:
            job: the job.
            run: its delivery.
            by: who cancelled it.
            why: the reason that they gave.
        """
        detail = f"Cancelled by {by}: {why}"
        if run.was_called:
            detail += f" {_CANCELLED_AFTER_A_CALL}"
        return self.report(job, run, Cancelled(Problem(ProblemType.CANCELLED, detail), was_called=run.was_called))

    def poisoned(self, job: ParsedJob, run: Run, crashes: int) -> Finished:
        """End a job that workers died on."""
        detail = (
            f"{crashes} workers died while they held the job. Look at their last log lines before replaying it: a "
            "replay is a new job, without this history, and may take as many workers down again."
        )
        return self.report(job, run, Poisoned(Problem(ProblemType.POISONED, detail)))
