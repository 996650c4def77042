"""The life of a job, top to bottom: admit, call, decide, report.

:class:`LockConversation` knows conversations and the API. It does not know where jobs come from, who else runs them and
how a result is published. It returns a decision (``tasks.decision``), and the worker carries that out.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from tasks import history
from tasks.decision import Decision, Finished, Later
from tasks.outcome import Exhausted, Expired, Locked, Problem, ProblemType, Refused, WouldLock
from tasks.retry import IN_PLACE_SECONDS, RetryDetails
from tasks.verdict import Blame, Overloaded, Retryable, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tasks.flow import Flow
    from tasks.lock_call import LockCall
    from tasks.message import Accepted, ParsedJob
    from tasks.reporter import Reporter
    from tasks.retry import Place, RetryObserver, RetryPolicy
    from tasks.run import Run

_TOO_OLD = "The job is older than JOB_MAX_AGE_SECONDS, so it is not called again."
_EXPIRED_UNCALLED = ", before it could be called."
_EXPIRED_AFTER_A_CALL = (
    " and is not called again. A call for it had been made or begun by then, and none confirmed the lock: the "
    "conversation may be locked."
)


class LockConversation:
    """Runs jobs, one call of this for each delivery.

    Args:
        call: calls the API for a job.
        flow: flow control.
        policy: when to try again.
        on_retry: called with each retry.
        reporter: makes the event of each end of a job.
        sleep: waits so many seconds, in the job's slot.

    Attributes:
        reporter: for the jobs that end without a run.
    """

    def __init__(
        self,
        *,
        call: LockCall,
        flow: Flow,
        policy: RetryPolicy,
        on_retry: RetryObserver,
        reporter: Reporter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.reporter = reporter
        self._call = call
        self._flow = flow
        self._policy = policy
        self._on_retry = on_retry
        self._sleep = sleep

    async def __call__(self, job: Accepted, run: Run) -> Decision:
        """Run a job until it is finished, or has to wait for longer than it may keep its slot."""
        while True:
            end = self._admit(job, run)
            if end is not None:
                return self.reporter.report(job, run, end)
            attempt = run.attempts + 1
            verdict = await self._call.make(job, run)
            decision = self._decide(job, run, verdict)
            if isinstance(decision, Finished):
                return decision
            where: Place = "slot" if self._may_wait_here(decision) else "redis"
            self._report_retry(job, run, attempt, decision, where)
            if where == "redis":
                return decision
            await self._wait(decision.delay)
            # A pause or an open breaker may have begun during the wait. Only a take checks them, so the job goes back.
            if self._flow.holds_back():
                return Later(0, decision.reason, is_retry=decision.is_retry)

    def ends_without_call(self, job: Accepted, run: Run) -> bool:
        """Return True if a job that would run now ends before a call."""
        return self._admit(job, run) is not None

    def failed(self, job: ParsedJob, run: Run, error: Exception) -> Decision:
        """Decide on a job that the worker's own error interrupted: it is retried as if the API had failed."""
        detail = f"The worker failed with {type(error).__name__}; its log tells more."
        attempt = run.attempts + 1
        error_type = ProblemType.INTERNAL.value
        run.progress.history = history.with_call(run.progress.history, run.clock(), error=error_type)
        decision = self._retry(job, run, Retryable(Problem(ProblemType.INTERNAL, detail), blame=Blame.WORKER))
        if isinstance(decision, Later):
            self._report_retry(job, run, attempt, decision, "redis")
        return decision

    def _admit(self, job: Accepted, run: Run) -> Expired | WouldLock | Exhausted | None:
        """Return the outcome of a job that must not be called; None: it may be called."""
        if job.expires_at is not None and run.clock() >= job.expires_at:
            when = _EXPIRED_AFTER_A_CALL if run.was_called else _EXPIRED_UNCALLED
            return Expired(Problem(ProblemType.EXPIRED, f"The job expired at {job.expires_at.isoformat()}{when}"))
        if job.is_dry_run:
            return WouldLock()
        if run.ends_at is not None and run.clock() >= run.ends_at:
            problem = run.progress.problem or self._flow.reason()
            return Exhausted(replace(problem, detail=f"{problem.detail} {_TOO_OLD}"))
        return None

    def _decide(self, job: Accepted, run: Run, verdict: Verdict) -> Decision:
        match verdict:
            case Retryable():
                return self._retry(job, run, verdict)
            case Overloaded(problem, retry_after):
                run.progress.problem = problem
                asked = None if retry_after is None else self._policy.capped(retry_after)
                # A retry, so that it runs beside new jobs: the API may refuse this job for what it is, and then the job
                # must not be the first one after each pause.
                return Later(self._flow.refused(run, problem.status or 0, asked), problem.type.value, is_retry=True)
            case Locked() | Refused():
                run.attempts += 1
                self._flow.answered(run)
                return self.reporter.report(job, run, verdict)
            case _:
                assert_never(verdict)

    def _retry(self, job: ParsedJob, run: Run, failure: Retryable) -> Decision:
        progress = run.progress
        progress.problem = failure.problem
        progress.may_be_at_work = progress.may_be_at_work or failure.may_be_at_work
        counted = self._flow.failed(run, failure.blame, failure.problem)
        # Earlier calls may count only now; all of them together are no more than a job has.
        run.attempts += min(counted, max(1, self._policy.max_attempts - run.attempts))
        run.is_retry = True
        reason = failure.problem.type.value
        if failure.blame is Blame.TOKEN:
            reason = "token_refused"
        if not counted and (self._flow.holds_back() or failure.blame is not Blame.TOKEN):
            return Later(self._policy.outage_delay(failure.retry_after), reason, is_retry=True)
        delay = self._policy.delay(max(1, run.attempts), failure.retry_after)
        if counted and delay is None:
            outcome = Refused if failure.blame is Blame.TOKEN else Exhausted
            return self.reporter.report(job, run, outcome(failure.problem))
        return Later(self._policy.outage_delay(None) if delay is None else delay, reason, is_retry=True)

    def _may_wait_here(self, later: Later) -> bool:
        return later.is_retry and later.delay <= IN_PLACE_SECONDS and self._flow.may_wait_in_slot()

    def _report_retry(self, job: ParsedJob, run: Run, attempt: int, later: Later, where: Place) -> None:
        run.progress.history = history.with_wait(run.progress.history, later.delay)
        problem = run.progress.problem
        status = None if problem is None else problem.status
        self._on_retry(RetryDetails(run.job, attempt, later.reason, status, later.delay, where, job.subject))

    async def _wait(self, seconds: float) -> None:
        self._flow.waits_in_slot(+1)
        try:
            await self._sleep(seconds)
        finally:
            self._flow.waits_in_slot(-1)
