"""When to call again after a failure, and what is told of it: numbers only. The caller does the waiting.

The backoff is exponential with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). Which failures are worth another call is
decided where responses are judged, in ``tasks.verdict``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

#: A wait of up to this many seconds is slept in the job's slot; a longer one is spent in Redis.
IN_PLACE_SECONDS = 1.0
#: A job whose call failed in an outage waits this long, and up to twice as long, while others probe.
_OUTAGE_SECONDS = 5.0
#: A Retry-After is stretched by up to this share (and one second at most), so that a fleet does not come back in one
#: moment.
_RETRY_AFTER_JITTER = 0.1
#: The bound doubles no more often than this, so that no number of attempts is too large for a float. By then even the
#: shortest base has long passed every cap.
_MAX_DOUBLINGS = 1000

#: Where a job waits for its next call: in the slot that it holds, or in Redis, holding none.
Place: TypeAlias = Literal["slot", "redis"]
#: Every reason for which a job is called again: the error types that a call may fail with and succeed another time, and
#: ``token_refused`` for a 401.
RETRY_REASONS = (
    "internal",
    "rate_limited",
    "server_error",
    "timeout",
    "token_refused",
    "unconfirmed",
    "unreachable",
)


@dataclass(frozen=True, slots=True)
class RetryDetails:
    """A call failed and its job will be called again.

    Attributes:
        job: the job id.
        attempt: the number of the call that failed, from 1; calls before it that did not count as attempts are not in
            it.
        reason: one of :data:`RETRY_REASONS`.
        status: the HTTP status; None: there was no answer.
        wait_seconds: how long the job waits.
        where: where it waits.
    """

    job: str
    attempt: int
    reason: str
    status: int | None
    wait_seconds: float
    where: Place


class RetryObserver(Protocol):
    """Counts and logs retries."""

    def __call__(self, retry: RetryDetails, /) -> None:
        """Called once for each retry, before the job waits."""


def backoff(attempts: int, *, base_seconds: float, max_seconds: float, rng: Callable[[], float]) -> float:
    """Seconds to wait after ``attempts`` failed calls: drawn evenly from zero to a bound that doubles with each.

    Args:
        attempts: calls made so far, 1 or more.
        base_seconds: the bound after the first call.
        max_seconds: the bound is never higher.
        rng: draws a number evenly from 0 to 1.
    """
    bound = min(max_seconds, base_seconds * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS))
    return bound * rng()


class RetryPolicy:
    """How long to wait before the next call, and whether there is one.

    Args:
        max_attempts: calls made for a job at most.
        base_seconds: upper bound of the first wait; it doubles with each further one.
        max_delay_seconds: the longest wait, whatever the backoff or a ``Retry-After`` says.
        rng: draws a number evenly from 0 to 1.
    """

    def __init__(
        self,
        *,
        max_attempts: int,
        base_seconds: float,
        max_delay_seconds: float,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.max_attempts = max_attempts
        self._base = base_seconds
        self._max_delay = max_delay_seconds
        self._rng = rng

    def capped(self, seconds: float) -> float:
        """A wait that the API asked for, as far as it is honoured."""
        return min(self._max_delay, seconds)

    def outage_delay(self, retry_after: float | None) -> float:
        """Seconds to wait after a call that failed because of an outage; at least what the API asked for."""
        return self.capped(max(_OUTAGE_SECONDS * (1 + self._rng()), retry_after or 0))

    def delay(self, attempts: int, retry_after: float | None) -> float | None:
        """Seconds to wait after ``attempts`` calls, or None when they are used up.

        Args:
            attempts: calls made so far, 1 or more.
            retry_after: seconds that the API asked for, if it did; a wait is never shorter, and may be longer.
        """
        if attempts >= self.max_attempts:
            return None
        wait = backoff(attempts, base_seconds=self._base, max_seconds=self._max_delay, rng=self._rng)
        if retry_after is None:
            return wait
        jitter = min(1.0, retry_after * _RETRY_AFTER_JITTER) * self._rng()
        return self.capped(max(wait, retry_after + jitter))
