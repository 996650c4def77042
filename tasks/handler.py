"""The life of a job, top to bottom: admit, call, decide, report.

:class:`LockConversation` knows conversations and the API; of where jobs come from, who else runs them and how an end is
published it knows nothing. What it returns is a decision (``tasks.decision``); the worker carries it out.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, assert_never

from tasks import event, trace, verbatim
from tasks.decision import Decision, Finished, Later
from tasks.job import idempotency_key
from tasks.managem import conversation
from tasks.managem.client import CallFailedError
from tasks.outcome import (
    Exhausted,
    Expired,
    Locked,
    Outcome,
    Poisoned,
    Problem,
    ProblemType,
    Refused,
    Rejected,
    Revoked,
    WouldLock,
)
from tasks.progress import Progress
from tasks.retry import IN_PLACE_SECONDS, RetryDetails
from tasks.verdict import Blame, Overloaded, Retryable, Verdict, judge, judge_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from tasks.managem.client import ManagemApi, Response
    from tasks.managem.conversation import ConversationView
    from tasks.message import Accepted, ParsedJob, Rejection
    from tasks.retry import Place, RetryObserver, RetryPolicy
    from tasks.trace import Trace

#: A larger answer is judged in a thread: half a million values in one would hold up the loop, which keeps the leases.
_LARGE_BODY_BYTES = 64 * 1024
_REVOKED_AFTER_A_CALL = (
    "The job was revoked when a call for it had been made or was under way: the conversation may be locked. "
    "Look at the conversation before you send the job again."
)
_TOO_OLD = "The job is older than JOB_MAX_AGE_SECONDS, so it is not called again."

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """One delivery of a job to this worker.

    Attributes:
        job: the job id.
        key: what the worker knows the delivery by.
        attempts: calls made so far that count, earlier deliveries included.
        received_at: when the job was first taken.
        ends_at: when the job is too old to be called; None: never.
        clock: returns the time on the Redis server's clock.
        before_call: awaited before each call; it raises when the job is not ours any more, and that ends the run.
        progress: what is known of the calls so far.
        is_retry: a call of the job failed before.
        is_probe: the job was taken to find out whether calls succeed again.
        is_newest: the job is new, and was taken from the end where the newest stand.
        is_calling: a call is under way.
        is_over: this delivery has come to its decision.
        epoch: the fleet's, when the last call began.
        trace: the job's, once it was needed.
    """

    job: str
    key: tuple[str, str]
    attempts: int
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
    trace: Trace | None = None


class Flow(Protocol):
    """What holds calls back, beside a job's own waits."""

    def begins(self, run: Run) -> None:
        """Note that a call begins."""

    def answered(self, run: Run) -> None:
        """Note that a call was answered as it should, or with a final no."""

    def failed(self, run: Run, blame: Blame, problem: Problem) -> int:
        """Note that a call failed; return the attempts that its job has lost by that."""

    def refused(self, run: Run, status: int, retry_after: float | None) -> float:
        """Note that the API refused a call for load; return the seconds that its job waits at least."""

    @property
    def doubts_token(self) -> bool:
        """True if the token was refused just now, so that a second try with the same one is in vain."""

    @property
    def needs_permits(self) -> bool:
        """True if each call needs a permit, which only a take gives."""

    def holds_back(self) -> bool:
        """Return True if the next call must go through a take, because only a take checks what holds calls back."""

    def may_wait_in_slot(self) -> bool:
        """Return True if a job may keep its slot until its next call."""

    def waits_in_slot(self, change: int) -> None:
        """Note that one more, or one less, waits in its slot."""

    def reason(self) -> Problem:
        """Why a job that was never called could not be."""


class LockConversation:
    """Locks conversations through the API.

    Args:
        api: the endpoint.
        flow: what holds calls back.
        policy: when to try again.
        on_retry: called with each retry.
        shown: how much of a conversation an event carries.
        max_event_bytes: an event of more bytes carries less of it.
        source: what the events name as their source.
        sleep: waits so many seconds, in the job's slot.
    """

    def __init__(
        self,
        *,
        api: ManagemApi,
        flow: Flow,
        policy: RetryPolicy,
        on_retry: RetryObserver,
        shown: ConversationView,
        max_event_bytes: int = event.MAX_EVENT_BYTES,
        source: str = event.SOURCE,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._flow = flow
        self._policy = policy
        self._on_retry = on_retry
        self._shown = shown
        self._max_event_bytes = max_event_bytes
        self._source = source
        self._sleep = sleep

    async def __call__(self, job: Accepted, run: Run) -> Decision:
        """Run a job until it is over, or has to wait for longer than a slot may be kept."""
        while True:
            end = self._admit(job, run)
            if end is not None:
                return self.report(job, run, end)
            attempt = run.attempts + 1
            verdict = await self._call(job, run)
            decision = self._decide(job, run, verdict)
            if isinstance(decision, Finished):
                return decision
            where: Place = "slot" if self._may_wait_here(decision) else "redis"
            self._tell_retry(run, attempt, decision, where)
            if where == "redis":
                return decision
            await self._wait(decision.delay)
            if self._flow.holds_back():  # since then: this job must not pass by what holds takes back
                return Later(0, decision.reason, is_retry=decision.is_retry)

    def _may_wait_here(self, later: Later) -> bool:
        return later.is_retry and later.delay <= IN_PLACE_SECONDS and self._flow.may_wait_in_slot()

    def _tell_retry(self, run: Run, attempt: int, later: Later, where: Place) -> None:
        problem = run.progress.problem
        status = None if problem is None else problem.status
        self._on_retry(RetryDetails(run.job, attempt, later.reason, status, later.delay, where))

    async def _wait(self, seconds: float) -> None:
        self._flow.waits_in_slot(+1)
        try:
            await self._sleep(seconds)
        finally:
            self._flow.waits_in_slot(-1)

    def ends_without_call(self, job: Accepted, run: Run) -> bool:
        """Return True if a job that would run now ends before a call."""
        return self._admit(job, run) is not None

    def rejected(self, rejection: Rejection, run: Run) -> Finished:
        """End a message that is no valid job."""
        return self.report(rejection, run, Rejected(rejection.problem))

    def conflicting(self, job: ParsedJob, run: Run) -> Finished:
        """End a job whose id stands for another conversation."""
        detail = "The job id was used for another conversation a short while ago; give every job an id of its own."
        return self.report(job, run, Rejected(Problem(ProblemType.INVALID_JOB, detail)))

    def revoked(self, job: ParsedJob, run: Run) -> Finished:
        """End a job that was revoked through Celery: a call that was made by then may have locked the conversation."""
        progress = run.progress
        was_called = run.attempts > 0 or progress.may_be_at_work or progress.problem is not None
        detail = _REVOKED_AFTER_A_CALL if was_called else "The job was revoked before it was called."
        return self.report(job, run, Revoked(Problem(ProblemType.REVOKED, detail), was_called=was_called))

    def poisoned(self, intake: ParsedJob, run: Run, crashes: int) -> Finished:
        """End a job that workers died on."""
        detail = (
            f"{crashes} workers died while they held the job. Look at their last log lines before replaying it: a "
            "replay is a new job, without this history, and may take as many workers down again."
        )
        return self.report(intake, run, Poisoned(Problem(ProblemType.POISONED, detail)))

    def failed(self, job: ParsedJob, run: Run, error: Exception) -> Decision:
        """Decide on a job that an error of the worker's own interrupted: it is retried as if the API had failed."""
        detail = f"The worker failed with {type(error).__name__}; its log tells more."
        attempt = run.attempts + 1
        decision = self._retry(job, run, Retryable(Problem(ProblemType.INTERNAL, detail), blame=Blame.WORKER))
        if isinstance(decision, Later):
            self._tell_retry(run, attempt, decision, "redis")
        return decision

    def report(self, intake: ParsedJob, run: Run, outcome: Outcome) -> Finished:
        """Make the event that tells how a job ended."""
        facts = event.Facts(
            id=intake.id,
            subject=intake.subject,
            received_fields=intake.received_fields,
            replay_of=intake.replay_of,
            received_at=run.received_at,
            finished_at=run.clock(),
            attempts=run.attempts,
            trace=_trace(intake, run),
            source=self._source,
        )
        return Finished(event.build(facts, outcome, max_bytes=self._max_event_bytes))

    def _admit(self, job: Accepted, run: Run) -> Expired | WouldLock | Exhausted | None:
        """The end of a job that must not be called, or None."""
        if job.expires_at is not None and run.clock() >= job.expires_at:
            detail = f"The job expired at {job.expires_at.isoformat()}, before it could be called."
            return Expired(Problem(ProblemType.EXPIRED, detail))
        if job.job.dry_run:
            return WouldLock()
        if run.ends_at is not None and run.clock() >= run.ends_at:
            problem = run.progress.problem or self._flow.reason()
            return Exhausted(replace(problem, detail=f"{problem.detail} {_TOO_OLD}"))
        return None

    async def _call(self, job: Accepted, run: Run) -> Verdict:
        """Call; when the token is not accepted, once more, because it may have been renewed since it was read."""
        verdict = await self._call_once(job, run)
        if isinstance(verdict, Retryable) and verdict.blame is Blame.TOKEN and self._is_worth_a_second_try(run):
            verdict = await self._call_once(job, run)
        return verdict

    def _is_worth_a_second_try(self, run: Run) -> bool:
        if self._api.token_is_new():
            return True
        return not (run.is_retry or run.is_probe or self._flow.doubts_token or self._flow.needs_permits)

    async def _call_once(self, job: Accepted, run: Run) -> Verdict:
        await run.before_call()
        self._flow.begins(run)
        run.is_calling = True
        conversation_id = job.job.conversation_id
        job_trace = _trace(job, run)
        try:
            answer = await self._api.lock(
                conversation_id,
                idempotency_key=idempotency_key(job.id),
                traceparent=job_trace.call(),
                tracestate=job_trace.state,
            )
        except CallFailedError as failure:
            run.is_calling = False
            return judge_failure(failure)
        run.is_calling = False
        if len(answer.body) > _LARGE_BODY_BYTES:
            return await asyncio.to_thread(self._judged, answer, job, run)
        return self._judged(answer, job, run)

    def _judged(self, answer: Response, job: Accepted, run: Run) -> Verdict:
        may_be_at_work = run.progress.may_be_at_work
        verdict = judge(answer, job.job.conversation_id, now=run.clock, may_be_at_work=may_be_at_work)
        if isinstance(verdict, Locked):
            fields = [*verdict.notes, *conversation.drift(verdict.conversation)]
            if fields:
                logger.warning("answer_drift", extra={"job": job.id, "fields": fields})
            shown = conversation.view(verdict.conversation, self._shown)
            if shown is not verdict.conversation:
                return Locked(shown, verbatim.encode(shown) if verdict.is_verbatim else None)
        return verdict

    def _decide(self, job: Accepted, run: Run, verdict: Verdict) -> Decision:
        match verdict:
            case Retryable():
                return self._retry(job, run, verdict)
            case Overloaded(problem, retry_after):
                run.progress.problem = problem
                asked = None if retry_after is None else self._policy.capped(retry_after)
                # Beside new work: a job that is refused for what it is must not be the first one after each pause.
                return Later(self._flow.refused(run, problem.status or 0, asked), problem.type.value, is_retry=True)
            case Locked() | Refused():
                run.attempts += 1
                self._flow.answered(run)
                return self.report(job, run, verdict)
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
            return self.report(job, run, outcome(failure.problem))
        return Later(self._policy.outage_delay(None) if delay is None else delay, reason, is_retry=True)


def _trace(intake: ParsedJob, run: Run) -> Trace:
    if run.trace is None:
        run.trace = trace.of_job(intake.traceparent, intake.tracestate, run.key)
    return run.trace
