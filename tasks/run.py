"""One delivery of a job, as far as the job's life needs to know it.

The worker makes a :class:`Run` for each delivery. The parts of the job's life (``tasks.handler``) and flow control read
and change it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks import trace
from tasks.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from tasks.attempts import AttemptCounter
    from tasks.message import ParsedJob
    from tasks.trace import JobTrace


@dataclass(slots=True)
class Run:
    """One delivery of a job to this worker.

    Attributes:
        job: the job id.
        key: the job's queue, and its permanent name there.
        counter: counts the attempts, earlier deliveries included.
        received_at: when the job was first taken.
        ends_at: when the job is too old to be called; None: never.
        clock: returns the time on the Redis server's clock.
        before_call: awaited before each call; it raises if another worker may have the job, and that ends the run.
        progress: what is known about the calls so far.
        is_retry: a call of the job failed before.
        is_probe: the job was taken to find out whether calls succeed again.
        is_newest: the job is new, and was taken from the end where the newest stand.
        is_calling: a call is under way, or its answer is not judged yet.
        is_over: the run has ended with a decision.
        epoch: the fleet's epoch when the last call began.
        trace: the job's trace; None until :func:`trace_of` was asked for it, unless the worker records the job.
    """

    job: str
    key: tuple[str, str]
    counter: AttemptCounter
    received_at: datetime
    ends_at: datetime | None
    clock: Callable[[], datetime]
    before_call: Callable[[], Awaitable[None]]
    progress: Progress = field(default_factory=Progress)
    is_retry: bool = False
    is_probe: bool = False
    is_newest: bool = False
    is_calling: bool = False
    is_over: bool = False
    epoch: int = 0
    trace: JobTrace | None = None

    @property
    def attempts(self) -> int:
        """Calls made so far that count, earlier deliveries included."""
        return self.counter.attempts

    @attempts.setter
    def attempts(self, attempts: int) -> None:
        self.counter.attempts = attempts

    @property
    def was_called(self) -> bool:
        """Whether a call for the job was made or is under way, whether it counts as an attempt or not."""
        return self.attempts > 0 or self.progress.may_be_at_work or self.progress.problem is not None


def trace_of(job: ParsedJob, run: Run) -> JobTrace:
    """Return the trace of a job, the same one for all its calls and its event."""
    if run.trace is None:
        run.trace = trace.of_job(job.traceparent, job.tracestate, run.key)
    return run.trace
