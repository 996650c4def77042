"""The life of a job, top to bottom: admit, call, decide, report.

:class:`LockConversation` knows conversations and the API; of where jobs come from, who else runs them and how an end is
published it knows nothing. What it returns is a decision (``tasks.decision``); the worker carries it out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from tasks import conversation, event
from tasks.api import CallFailed
from tasks.decision import Decision, Finished, Later
from tasks.job import idempotency_key
from tasks.outcome import (
    Exhausted,
    Expired,
    Locked,
    Outcome,
    Poisoned,
    Problem,
    ProblemType,
    Rejected,
    Revoked,
    WouldLock,
)
from tasks.retry import IN_PLACE_SECONDS, parse_retry_after
from tasks.verdict import Blame, Retryable, Verdict, judge, judge_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from tasks.api import ManagemApi
    from tasks.conversation import Shown
    from tasks.message import Accepted, Intake, Refusal
    from tasks.retry import RetryPolicy

#: The statuses whose ``Retry-After`` speaks to all callers, and not of one conversation.
_PAUSING = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

TASK_NAME = "moderation.lock_conversation"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """One delivery of a job to this worker.

    Attributes:
        attempts: calls made so far, earlier deliveries included.
        received_at: when the job was first taken.
        clock: the moment, on the Redis server's clock.
        before_call: awaited before each call; it raises when the job is not ours any more, and that ends the run.
    """

    attempts: int
    received_at: datetime
    clock: Callable[[], datetime]
    before_call: Callable[[], Awaitable[None]]


class Flow(Protocol):
    """What holds calls back, beside a job's own waits."""

    def answered(self) -> None:
        """Told that a call was answered as it should."""

    def failed(self, job: str, blame: Blame) -> bool:
        """Told that a call for a job failed; True if that counts as an attempt of the job."""

    def holds_back(self) -> bool:
        """Whether a job must not wait for its next call in its slot, because the call has to ask first."""

    def pause(self, seconds: float) -> None:
        """Let nobody in the fleet take a job for so long."""


class LockConversation:
    """Locks conversations through the API.

    Args:
        api: the endpoint.
        flow: what holds calls back.
        policy: when to try again.
        shown: how much of a conversation an event carries.
        sleep: waits so many seconds, in the job's slot.
    """

    def __init__(
        self,
        *,
        api: ManagemApi,
        flow: Flow,
        policy: RetryPolicy,
        shown: Shown,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._flow = flow
        self._policy = policy
        self._shown = shown
        self._sleep = sleep

    async def __call__(self, job: Accepted, run: Run) -> Decision:
        """Run a job until it is over, or has to wait for longer than a slot may be kept."""
        while True:
            end = self._admit(job, run)
            if end is not None:
                return self.report(job, run, end)
            verdict = await self._call(job, run)
            if not isinstance(verdict, Retryable):
                self._flow.answered()
                return self.report(job, run, verdict)
            decision = self._decide(job, run, verdict)
            if isinstance(decision, Finished) or decision.delay > IN_PLACE_SECONDS or self._flow.holds_back():
                return decision
            await self._sleep(decision.delay)
            if self._flow.holds_back():  # since then; what holds back takes is not to be passed by in a slot
                return Later(0, decision.reason)

    def rejected(self, refusal: Refusal, run: Run) -> Finished:
        """End a message that is no valid job."""
        return self.report(refusal, run, Rejected(refusal.problem))

    def conflicting(self, job: Accepted, run: Run) -> Finished:
        """End a job whose id stands for another conversation."""
        detail = "The job id was used for another conversation a short while ago; give every job an id of its own."
        return self.report(job, run, Rejected(Problem(ProblemType.INVALID_JOB, detail)))

    def revoked(self, job: Accepted, run: Run) -> Finished:
        """End a job that was revoked through Celery."""
        return self.report(job, run, Revoked(Problem(ProblemType.REVOKED, "The job was revoked before it was called.")))

    def poisoned(self, intake: Intake, run: Run, crashes: int) -> Finished:
        """End a job that workers died on."""
        detail = f"{crashes} workers died while they held the job. Look at their last log lines before replaying it."
        return self.report(intake, run, Poisoned(Problem(ProblemType.POISONED, detail)))

    def failed(self, job: Accepted, run: Run, error: Exception) -> Decision:
        """Decide on a job that an error of the worker's own interrupted: it is retried as if the API had failed."""
        detail = f"The worker failed with {type(error).__name__}; its log tells more."
        return self._decide(job, run, Retryable(Problem(ProblemType.INTERNAL, detail), blame=Blame.WORKER))

    def report(self, intake: Intake, run: Run, outcome: Outcome) -> Finished:
        """Make the event that tells how a job ended."""
        facts = event.Facts(
            id=intake.id,
            subject=intake.subject,
            echo=intake.echo,
            replay_of=intake.replay_of,
            received_at=run.received_at,
            finished_at=run.clock(),
            attempts=run.attempts,
        )
        return Finished(event.build(facts, outcome))

    def _admit(self, job: Accepted, run: Run) -> Expired | WouldLock | None:
        """The end of a job that must not be called, or None."""
        if job.expires_at is not None and run.clock() >= job.expires_at:
            detail = f"The job expired at {job.expires_at.isoformat()}, before it could be called."
            return Expired(Problem(ProblemType.EXPIRED, detail))
        if job.job.dry_run:
            return WouldLock()
        return None

    async def _call(self, job: Accepted, run: Run) -> Verdict:
        """Call; when the token is not accepted, once more, because it may have been renewed since it was read."""
        verdict = await self._call_once(job, run)
        if isinstance(verdict, Retryable) and verdict.blame is Blame.TOKEN and not self._flow.holds_back():
            run.attempts -= 1
            verdict = await self._call_once(job, run)
        return verdict

    async def _call_once(self, job: Accepted, run: Run) -> Verdict:
        await run.before_call()
        run.attempts += 1
        conversation_id = job.job.conversation_id
        try:
            answer = await self._api.lock(
                conversation_id,
                idempotency_key=idempotency_key(job.id),
                traceparent=_next_span(job.traceparent),
            )
        except CallFailed as failure:
            return judge_failure(failure)
        verdict = judge(answer, conversation_id)
        if isinstance(verdict, Locked):
            drift = conversation.drift(verdict.conversation)
            if drift:
                logger.warning("answer_drift", extra={"job": job.id, "fields": drift})
            return Locked(conversation.shown(verdict.conversation, self._shown))
        return verdict

    def _decide(self, job: Accepted, run: Run, failure: Retryable) -> Decision:
        retry_after = parse_retry_after(failure.retry_after, run.clock())
        if retry_after and failure.problem.status in _PAUSING:
            self._flow.pause(self._policy.capped(retry_after))
        if not self._flow.failed(job.id, failure.blame):
            run.attempts -= 1  # the outage's, not the job's
            return Later(self._policy.aside(retry_after), failure.problem.type.value)
        delay = self._policy.delay(run.attempts, retry_after)
        if delay is None:
            return self.report(job, run, Exhausted(failure.problem))
        return Later(delay, failure.problem.type.value)


def _next_span(traceparent: str | None) -> str:
    """A W3C trace context for one call: the producer's trace, or a new one, with a span of its own."""
    if traceparent is None:
        drawn = secrets.token_hex(24)
        return f"00-{drawn[:32]}-{drawn[32:]}-01"
    span = secrets.token_hex(8)
    version, trace, _, flags = traceparent.split("-")[:4]
    return f"{version}-{trace}-{span}-{flags}"
