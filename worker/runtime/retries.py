"""Calls to Redis that are made again until they are answered: tenacity's loop with our waits and our log.

A call that fails is repeated for ever, because the job behind it is not over before Redis says so; its lease is kept
meanwhile. ``worker.observe.outages`` writes the log lines. Cancelling ends it at once, in a call or in a wait.

The first call is made without tenacity, whose loop costs about 35 us a call even where nothing fails; this costs 0.5 us
(timeit, Python 3.11, tenacity 9.2). Only a failure starts the loop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_fixed

from worker.observe.outages import outages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tenacity import RetryCallState
    from tenacity.wait import WaitBaseT

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)

#: How long to wait before Redis is asked again, in seconds: after the first failure, and at most. The wait doubles.
FIRST_WAIT_SECONDS = 0.05
MAX_WAIT_SECONDS = 2.0


def _log_error(error: Exception, part: str, wait_seconds: float) -> None:
    logger.error("redis_retry", exc_info=error, extra={"move": part, "wait_seconds": wait_seconds})


async def retry_forever(
    part: str,
    call: Callable[[], Awaitable[Answer]],
    *,
    queue: str = "",
    wait_seconds: float | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    facts: Callable[[], Mapping[str, Any]] = dict,
    log_error: Callable[[Exception, str, float], None] = _log_error,
) -> Answer:
    """Make a call that may be repeated until it is answered, and return the answer.

    Args:
        part: names the call in the log of outages.
        call: makes it.
        queue: whose call it is, where each queue makes it.
        wait_seconds: the wait before each further call; None: it doubles from ``FIRST_WAIT_SECONDS`` to
            ``MAX_WAIT_SECONDS``.
        sleep: waits, in place of ``asyncio.sleep``.
        facts: further fields for the line that an outage begins with.
        log_error: logs an error of our own, from the error, ``part`` and the seconds until the next call. Such a call
            is repeated too: to give up would strand jobs whose leases are renewed.
    """
    try:
        answer = await call()
    except Exception as error:  # noqa: BLE001 - logged, each kind in its way, before the first wait
        failure = error
    else:
        outages.worked(part, queue)
        return answer
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Exception),  # and not CancelledError
        wait=_backoff() if wait_seconds is None else wait_fixed(wait_seconds),
        before_sleep=_failure_log(part, queue, facts, log_error),
        sleep=sleep or asyncio.sleep,
    )
    answer = await retrying(_after(failure, call))
    outages.worked(part, queue)
    return answer


def _failure_log(
    part: str, queue: str, facts: Callable[[], Mapping[str, Any]], log_error: Callable[[Exception, str, float], None]
) -> Callable[[RetryCallState], None]:
    """Return what logs each failed call before its wait. Arguments as for :func:`retry_forever`."""

    def log(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if isinstance(error, RedisError | OSError):
            outages.failed(part, error, queue=queue, **facts())
        elif isinstance(error, Exception):
            log_error(error, part, state.upcoming_sleep)

    return log


def _after(failure: Exception, call: Callable[[], Awaitable[Answer]]) -> Callable[[], Awaitable[Answer]]:
    """Return the call as tenacity makes it: its first try is the call that has failed already."""
    failed = [failure]

    async def again() -> Answer:
        if failed:
            raise failed.pop()
        return await call()

    return again


def _backoff() -> WaitBaseT:
    return wait_exponential(multiplier=FIRST_WAIT_SECONDS, max=MAX_WAIT_SECONDS)
