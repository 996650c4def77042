"""Computes when to call again after a failure, and defines the record of a retry. The caller does the waiting.

The backoff is exponential with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). Which failures are worth another call is
decided in ``tasks.verdict``, which judges the responses.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

#: A wait of up to this many seconds is slept in the job's slot; a longer one is spent in Redis.
IN_PLACE_SECONDS = 1.0
#: A job whose call failed in an outage waits between this long and twice as long, while other jobs probe the API.
_OUTAGE_SECONDS = 5.0
#: A wait for a Retry-After is longer than it by up to this share (one second at most), so that not all jobs of a fleet
#: call again at the same time.
_RETRY_AFTER_JITTER = 0.1
#: The bound doubles no more often than this, so that no number of attempts is too large for a float. By then even the
#: shortest base has long passed every cap.
_MAX_DOUBLINGS = 1000

#: Where a job waits for its next call: in the slot that it holds, or in Redis, holding none.
Place: TypeAlias = Literal["slot", "redis"]
#: Every reason of a retry: the error types of calls that may succeed another time, and ``token_refused`` for a 401.
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
        attempt: the number of the call that failed, from 1; earlier calls that did not count as attempts are left out.
        reason: one of :data:`RETRY_REASONS`.
        status: the HTTP status; None: there was no answer.
        wait_seconds: how long the job waits.
        where: where it waits.
        conversation: the id of the conversation; None: the message names none.
    """

    job: str
    attempt: int
    reason: str
    status: int | None
    wait_seconds: float
    where: Place
    conversation: str | None


class RetryObserver(Protocol):
    """Counts and logs retries."""

    def __call__(self, retry: RetryDetails, /) -> None:
        """Called once for each retry, before the job waits."""


def backoff(attempts: int, *, base_seconds: float, max_seconds: float, rng: Callable[[], float]) -> float:
    """Return the seconds to wait after failed calls: drawn evenly from zero to a bound that doubles with each call.

    Args:
        attempts: calls made so far, 1 or more.
        base_seconds: the bound after the first call.
        max_seconds: the bound is never higher.
        rng: draws a number evenly from 0 to 1.
    """
    bound = min(max_seconds, base_seconds * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS))
    return bound * rng()


class RetryPolicy:
    """Says how long to wait before the next call, and if there is one.

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
        """Return how long a wait that the API asked for is honoured: ``max_delay_seconds`` at most."""
        return min(self._max_delay, seconds)

    def outage_delay(self, retry_after: float | None) -> float:
        """Return the seconds to wait after a call that failed in an outage; at least what the API asked for."""
        return self.capped(max(_OUTAGE_SECONDS * (1 + self._rng()), retry_after or 0))

    def delay(self, attempts: int, retry_after: float | None) -> float | None:
        """Return the seconds to wait after ``attempts`` calls; None if all attempts are used up.

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
