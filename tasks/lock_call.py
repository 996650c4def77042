"""Calls the API for a job, and judges its answer."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from tasks import drift, history, verbatim
from tasks.job import idempotency_key
from tasks.managem import conversation
from tasks.managem.client import CallFailedError
from tasks.outcome import Locked
from tasks.run import trace_of
from tasks.verdict import Blame, Retryable, judge, judge_failure

if TYPE_CHECKING:
    from tasks.drift import DriftObserver
    from tasks.flow import Flow
    from tasks.managem.client import ManagemApi, Response
    from tasks.managem.conversation import ConversationView
    from tasks.message import Accepted
    from tasks.run import Run
    from tasks.verdict import Verdict

#: A larger answer is judged in a thread: half a million values in one would block the loop, which renews the leases.
_LARGE_BODY_BYTES = 64 * 1024


class CallObserver(Protocol):
    """Is told of each call that is over."""

    def __call__(self, status: int | None, seconds: float, /) -> None:
        """Note the HTTP status, None if there was no answer, and how long the call took."""


class LockCall:
    """Makes the call of a job.

    Args:
        api: the API's client.
        flow: flow control; it knows whether other calls are refused for the token.
        shown: how much of a conversation an event contains.
        on_call: called after each call.
        on_drift: called with each answer that deviates from the documented shape.
    """

    def __init__(
        self,
        *,
        api: ManagemApi,
        flow: Flow,
        shown: ConversationView,
        on_call: CallObserver = lambda *_: None,
        on_drift: DriftObserver = drift.log,
    ) -> None:
        self._api = api
        self._flow = flow
        self._shown = shown
        self._on_call = on_call
        self._on_drift = on_drift

    async def make(self, job: Accepted, run: Run) -> Verdict:
        """Call; if the API refuses the token, call once more, because the token may have been renewed since.

        Raises:
            Exception: what ``run.before_call`` raised, because the job must not be called any more.
        """
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
        job_trace = trace_of(job, run)
        began = time.perf_counter()
        try:
            answer = await self._api.lock(
                job.job.conversation_id,
                idempotency_key=idempotency_key(job.id),
                traceparent=job_trace.call_begins(),
                tracestate=job_trace.state,
            )
        except CallFailedError as failure:
            run.is_calling = False
            seconds = time.perf_counter() - began
            self._on_call(None, seconds)
            verdict: Verdict = judge_failure(failure)
            _note(run, failure.status, verdict, seconds)
            job_trace.call_ended(failure.status, verdict)
            return verdict
        seconds = time.perf_counter() - began
        self._on_call(answer.status, seconds)
        if len(answer.body) > _LARGE_BODY_BYTES:
            verdict = await asyncio.to_thread(self._judged, answer, job, run)
        else:
            verdict = self._judged(answer, job, run)
        run.is_calling = False  # not before: of a run that is cancelled until then nobody knows what came of its call
        _note(run, answer.status, verdict, seconds)
        job_trace.call_ended(answer.status, verdict)
        return verdict

    def _judged(self, answer: Response, job: Accepted, run: Run) -> Verdict:
        may_be_at_work = run.progress.may_be_at_work
        verdict = judge(answer, job.job.conversation_id, now=run.clock, may_be_at_work=may_be_at_work)
        if isinstance(verdict, Locked):
            fields = [*verdict.notes, *conversation.drift(verdict.conversation)]
            if fields:
                self._on_drift(job.id, [drift.parse(field) for field in fields])
            shown = conversation.view(verdict.conversation, self._shown)
            if shown is not verdict.conversation:
                return Locked(shown, verbatim.encode(shown) if verdict.is_verbatim else None)
        return verdict


def _note(run: Run, status: int | None, verdict: Verdict, seconds: float) -> None:
    """Note in the job's history a call that took so many seconds; not where it is the only one, and locked."""
    progress = run.progress
    if isinstance(verdict, Locked):
        if not progress.history:
            return
        error = None
    else:
        error = verdict.problem.type.value
    began = run.clock() - timedelta(seconds=seconds)
    progress.history = history.with_call(progress.history, began, status=status, error=error)
