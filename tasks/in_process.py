"""Run one job in the process that asks for it: for a producer's tests, and to try a job by hand.

The job runs through the same code as in the worker (``tasks.parse``, ``tasks.handler``). What the worker does for a
fleet is left out: this takes nothing from Redis, publishes nothing, remembers no id and holds no other job back. The
worker may wait with its fleet until the API recovers. Here that wait is bounded: a refused token counts as a
failed call, and a job whose calls are refused for load (429, 503 with ``Retry-After``) ends after MAX_ATTEMPTS of them.
Each wait is at most RETRY_MAX_DELAY_SECONDS long. ``eta`` is checked but not waited for, as in every task that Celery
runs eagerly.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from settings import load
from tasks import from_settings, message_options, trace
from tasks.attempts import Attempts
from tasks.decision import Finished
from tasks.job import MAX_LEVELS
from tasks.message import Message, Rejection, UndecodableMessage
from tasks.outcome import Exhausted, Problem, ProblemType
from tasks.parse import parse
from tasks.redaction import describe
from tasks.run import Run
from tasks.shadow import shadow_of
from tasks.strict_json import NotStrictError, loads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from settings import Settings
    from tasks.decision import Decision
    from tasks.event import Event
    from tasks.handler import LockConversation
    from tasks.message import Accepted, ParsedJob
    from tasks.retry import RetryDetails, RetryPolicy
    from tasks.verdict import Blame

#: The levels of a job's field, and three more: the body, the argument list and the job object around it.
_MAX_BODY_LEVELS = MAX_LEVELS + 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the task, with what a message of it would hold.

    Attributes:
        id: the task id, of whatever type.
        body: the arguments and keyword arguments as the JSON list of both that Celery would send.
        headers: the headers of that message: ``eta``, ``expires``, ``traceparent`` and the like.
        problem: a sentence about the values that JSON cannot hold, and that the body leaves out; None: there are none.
    """

    id: Any
    body: bytes
    headers: Mapping[str, Any]
    problem: str | None = None


def run(call: Call) -> dict[str, Any]:
    """Run a job to its end, and return its result event.

    Reads the settings, the token among them, from the environment.

    Raises:
        SettingsError: a setting is wrong, or there is no token.
    """
    settings = load(need_token=True)
    received_at = _now()
    parsed = parse(_message(call, received_at), shadow_of(settings))
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        event = _run_in_a_loop(parsed, received_at, settings)
    else:  # the caller's thread has a loop already, and it cannot run another one
        with ThreadPoolExecutor(1, "lock_conversation") as thread:
            event = thread.submit(_run_in_a_loop, parsed, received_at, settings).result()
    result: dict[str, Any] = json.loads(event.body, parse_int=_integer)
    return result


def _run_in_a_loop(parsed: ParsedJob, received_at: datetime, settings: Settings) -> Event:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # does not change the caller's own loop
        return runner.run(_event_of(parsed, received_at, settings))


async def _event_of(parsed: ParsedJob, received_at: datetime, settings: Settings) -> Event:
    api = from_settings.api_client(settings, concurrency=1)
    flow = _Flow(from_settings.retry_policy(settings), settings.RETRY_BASE_SECONDS)
    handler = from_settings.lock_conversation(settings, api=api, flow=flow, on_retry=_log_retry)
    max_age = timedelta(seconds=settings.JOB_MAX_AGE_SECONDS)
    job_run = Run(
        job=parsed.id,
        key=(settings.LOCK_QUEUE, parsed.id),
        counter=Attempts(),
        received_at=received_at,
        ends_at=received_at + max_age if max_age else None,
        clock=_now,
        before_call=_before_call,
    )
    try:
        if isinstance(parsed, Rejection):
            return handler.reporter.rejected(parsed, job_run).event
        return await _run_until_finished(handler, flow, parsed, job_run)
    finally:
        await api.aclose()


async def _run_until_finished(handler: LockConversation, flow: _Flow, job: Accepted, job_run: Run) -> Event:
    while True:
        decision = await _run_once(handler, job, job_run)
        if isinstance(decision, Finished):
            return decision.event
        if flow.was_refused_too_often:
            problem = job_run.progress.problem or flow.reason()
            detail = f"{problem.detail} It did so at {flow.refusals} calls; a job that runs in-process waits no longer."
            return handler.reporter.report(job, job_run, Exhausted(replace(problem, detail=detail))).event
        await asyncio.sleep(decision.delay)


async def _run_once(handler: LockConversation, job: Accepted, job_run: Run) -> Decision:
    try:
        return await handler(job, job_run)
    except Exception as error:
        logger.exception("job_error", extra={"job": job.id})
        return handler.failed(job, job_run, error)


async def _before_call() -> None:
    """Check nothing: no other worker can have the job."""


def _now() -> datetime:
    return datetime.now(UTC)


def _integer(digits: str) -> int | float:
    """Read an integer of any length; one with more digits than Python accepts becomes a float."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


class _Flow:
    """Flow control for a job that runs alone: only what the API asks for holds its calls back.

    Args:
        policy: how long a wait may be, and how many calls a job has.
        first_pause: seconds to wait after the first refusal for load that names no time; doubles with each further one.
    """

    doubts_token = False
    needs_permits = False

    def __init__(self, policy: RetryPolicy, first_pause: float) -> None:
        self._policy = policy
        self._first_pause = first_pause
        self.refusals = 0

    @property
    def was_refused_too_often(self) -> bool:
        """True if the API refused as many calls for load as a job has attempts."""
        return self.refusals >= self._policy.max_attempts

    def begins(self, run: Run) -> None:
        """Do nothing: no other call depends on it."""

    def answered(self, run: Run) -> None:
        """Do nothing: no other call depends on it."""

    def failed(self, run: Run, blame: Blame, problem: Problem) -> int:  # noqa: ARG002 - the protocol's signature
        """Count each failure as an attempt: there are no other jobs that could show whose fault it is."""
        return 1

    def refused(self, run: Run, status: int, retry_after: float | None) -> float:  # noqa: ARG002 - as above
        """Return the seconds to wait."""
        self.refusals += 1
        return self._policy.capped(self._first_pause * 2 ** (self.refusals - 1)) if retry_after is None else retry_after

    def holds_back(self) -> bool:
        """Return False: there is no take that could check anything."""
        return False

    def may_wait_in_slot(self) -> bool:
        """Return False: the caller of the handler waits, because it counts the refusals."""
        return False

    def waits_in_slot(self, change: int) -> None:
        """Do nothing: no job waits in a slot here."""

    def reason(self) -> Problem:
        """Return why no call was made for a job that is too old."""
        return Problem(ProblemType.INTERNAL, "The job became too old before it was called.")


def _message(call: Call, now: datetime) -> Message | UndecodableMessage:
    """Return what the worker would decode from a message of this call."""
    own_id = message_options.usable_id(call.id)
    job_id = own_id or str(uuid.uuid4())
    traceparent, tracestate = trace.read(call.headers)
    replay_of = message_options.replay_of(call.headers.get("replay_of"))
    args: Any = None
    kwargs: Any = None
    try:
        args, kwargs = _arguments(call.body)
        _check(call, args, kwargs)
        not_before, is_eta_naive = message_options.not_before(call.headers.get("eta"), now)
        expires_at, is_expires_naive = message_options.parse_time("expires", call.headers.get("expires"))
    except ValueError as reason:
        return UndecodableMessage(
            id=job_id,
            has_own_id=own_id is not None,
            problem=Problem(ProblemType.INVALID_JOB, str(reason)),
            args=args if isinstance(args, list) else None,
            kwargs=kwargs if isinstance(kwargs, dict) else None,
            replay_of=replay_of,
            traceparent=traceparent,
            tracestate=tracestate,
        )
    naive_times = ("eta",) * is_eta_naive + ("expires",) * is_expires_naive
    for option in naive_times:
        logger.warning("naive_time_read_as_utc", extra={"option": option, "job": job_id})
    return Message(
        id=job_id,
        has_own_id=True,
        args=args,
        kwargs=kwargs,
        not_before=not_before,
        expires_at=expires_at,
        traceparent=traceparent,
        replay_of=replay_of,
        ignored=(),
        tracestate=tracestate,
        naive_times=naive_times,
    )


def _arguments(body: bytes) -> Any:
    try:
        return loads(body, max_levels=_MAX_BODY_LEVELS, keep_digits=True)
    except NotStrictError as reason:
        raise ValueError(f"The job {reason}.") from None


def _check(call: Call, args: Any, kwargs: Any) -> None:
    if call.problem is not None:
        raise ValueError(call.problem)
    if message_options.usable_id(call.id) is None:
        raise ValueError(message_options.unusable_id(call.id))
    if not isinstance(args, list):
        raise ValueError(f"args: must be a list, and is {describe(args)}.")  # noqa: TRY004 - the caller reads a ValueError
    if not isinstance(kwargs, dict):
        raise ValueError(f"kwargs: must be an object, and is {describe(kwargs)}.")  # noqa: TRY004 - as above


def _log_retry(retry: RetryDetails) -> None:
    logger.info(
        "call %d of job %s failed (%s); the next one is in %.1f s",
        retry.attempt, retry.job, retry.reason, retry.wait_seconds,
    )  # fmt: skip
