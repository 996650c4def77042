"""When to try again: the policy, and nothing of carrying it out.

tenacity holds the two strategies: exponential backoff with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) and the end after so many calls. What is
worth another try is decided where answers are judged, in ``tasks.verdict``.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_random_exponential

if TYPE_CHECKING:
    from collections.abc import Callable

#: A wait of up to this many seconds is slept in the job's slot; a longer one is spent in Redis.
IN_PLACE_SECONDS = 1.0
#: A job whose call failed in an outage waits this long, and up to twice as long, while others probe.
_ASIDE_SECONDS = 5.0
#: A Retry-After is stretched by up to this share (and one second at most), so that a fleet does not come back in one
#: moment.
_RETRY_AFTER_JITTER = 0.1


class RetryPolicy:
    """How long to wait before the next call, and whether there is one.

    Args:
        max_attempts: calls made for a job at most.
        base_seconds: upper bound of the first wait; it doubles with each further one.
        max_delay_seconds: the longest wait, whatever the backoff or a ``Retry-After`` says.
        chance: a number drawn evenly from 0 to 1.
    """

    def __init__(
        self,
        *,
        max_attempts: int,
        base_seconds: float,
        max_delay_seconds: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.max_attempts = max_attempts
        self._max_delay = max_delay_seconds
        self._chance = chance
        self._stop = stop_after_attempt(max_attempts)
        self._backoff = wait_random_exponential(multiplier=base_seconds, max=max_delay_seconds)

    def capped(self, seconds: float) -> float:
        """A wait that the API asked for, as far as it is honoured."""
        return min(self._max_delay, seconds)

    def outage_delay(self, retry_after: float | None) -> float:
        """Seconds that a job waits after a call that failed by no fault of its own; no less than the API asked for."""
        return self.capped(max(_ASIDE_SECONDS * (1 + self._chance()), retry_after or 0))

    def delay(self, attempts: int, retry_after: float | None) -> float | None:
        """Seconds to wait after ``attempts`` calls, or None when they are used up.

        Args:
            attempts: calls made so far, 1 or more.
            retry_after: seconds that the API asked for, if it did; a wait is never shorter, and may be longer.
        """
        state = RetryCallState(_NO_LOOP, None, (), {})
        state.attempt_number = attempts
        if self._stop(state):
            return None
        backoff = self._backoff(state)
        if retry_after is None:
            return backoff
        jitter = min(1.0, retry_after * _RETRY_AFTER_JITTER) * self._chance()
        return self.capped(max(backoff, retry_after + jitter))


#: tenacity's strategies want to know the loop they serve; ours only ask them for numbers.
_NO_LOOP = Retrying()
