"""A circuit breaker: while the API is down, jobs stay in Redis and single probes find out when it is back.

It opens after so many failures in a row over several jobs; one bad job never opens it, MAX_ATTEMPTS ends that. While it
is open one job is let through at growing intervals, each time another one. When a call succeeds the door opens by
degrees: one job at a time, then two, four, ... Each process has its own, so a hundred pods find their own way back and
nothing has to agree.
"""

from __future__ import annotations

import logging
import random
import time
from enum import Enum
from typing import TYPE_CHECKING

from worker.gate import Admit, Answer, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Waits are stretched by up to this share, so that pods do not probe in step.
_SPREAD = 0.2


class State(Enum):
    """Whether jobs pass."""

    CLOSED = "closed"
    OPEN = "open"
    RECOVERING = "recovering"


class Breaker:
    """A breaker for one kind of failure.

    Args:
        reason: what it is open for, as a stable word.
        advice: what to do about it, in a sentence or two for the person on call.
        failures: failures in a row that open it; 0: it never opens.
        jobs: different jobs that these must come from.
        first_wait: seconds to the first probe.
        longest_wait: the longest time between two probes, in seconds; the time doubles with each failed one.
        clock: monotonic seconds.
        chance: a number drawn evenly from 0 to 1.
    """

    def __init__(
        self,
        reason: str,
        *,
        advice: str,
        failures: int,
        jobs: int,
        first_wait: float,
        longest_wait: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.reason = reason
        self.advice = advice
        self.state = State.CLOSED
        self._failures_to_open = failures
        self._jobs_to_open = jobs
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._jobs: set[str] = set()
        self._wait = first_wait
        self._probe_at = 0.0
        self._width = 0
        self._is_probing = False

    @property
    def is_closed(self) -> bool:
        """Whether jobs pass freely."""
        return self.state is State.CLOSED

    @property
    def is_open(self) -> bool:
        """Whether none but probes pass."""
        return self.state is State.OPEN

    def ask(self, wanted: int, held: int) -> Answer:
        """How many of the wanted jobs may be taken, beside those held."""
        if self.state is State.CLOSED:
            return Admit(wanted)
        if self.state is State.RECOVERING:
            return Admit(max(0, min(wanted, self._width - held)))
        wait = self._probe_at - self._clock()
        if wait > 0:
            return Wait(wait, self.reason)
        if wanted <= 0:
            return Admit(0)
        self._is_probing = True
        self._probe_at = self._clock() + self._stretched(self._wait)
        return Admit(1, is_probe=True)

    def unused(self) -> None:
        """There was no job to probe with, or another gate kept it back: the next one that comes may."""
        if self.state is State.OPEN and self._is_probing:
            self._is_probing = False
            self._probe_at = self._clock()

    def succeeded(self, concurrency: int) -> None:
        """A call was answered as it should; ``concurrency`` is how many jobs run at once in good times."""
        self._failures = 0
        self._jobs.clear()
        if self.state is State.OPEN:
            self.state, self._width, self._is_probing = State.RECOVERING, 1, False
            logger.warning("breaker_recovering", extra={"reason": self.reason})
        elif self.state is State.RECOVERING:
            self._width += 1
            if self._width >= concurrency:
                self.state = State.CLOSED
                logger.warning("breaker_closed", extra={"reason": self.reason})

    def failed(self, job: str) -> bool:
        """A call for a job failed; True if that counts as an attempt of the job, False if it was the outage's."""
        self._failures += 1
        if self.state is State.OPEN:
            if self._is_probing:
                self._is_probing = False
                self._open(min(self._wait * 2, self._longest_wait))
                self._tell("breaker_probe_failed")
            return False
        if len(self._jobs) < self._jobs_to_open:
            self._jobs.add(job)
        if self.state is State.RECOVERING and self._failures >= self._jobs_to_open:
            self._open(min(self._wait * 2, self._longest_wait))
            self._tell("breaker_reopened")
        elif 0 < self._failures_to_open <= self._failures and len(self._jobs) >= self._jobs_to_open:
            self._open(self._first_wait)
            self._tell("breaker_opened")
        return True

    def _open(self, wait: float) -> None:
        self.state, self._wait = State.OPEN, wait
        self._probe_at = self._clock() + self._stretched(wait)

    def _tell(self, event: str) -> None:
        wait = round(self._probe_at - self._clock(), 3)
        extra = {"reason": self.reason, "failures": self._failures, "wait_seconds": wait, "advice": self.advice}
        logger.error(event, extra=extra)

    def _stretched(self, wait: float) -> float:
        return wait * (1 + _SPREAD * self._chance())
