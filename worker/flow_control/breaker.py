"""A circuit breaker: while it is open, jobs stay in Redis and single probes find out when calls succeed again.

Its states are those of the pattern (https://martinfowler.com/bliki/CircuitBreaker.html). CLOSED: jobs pass. OPEN: none
but probes, at growing intervals, each with another job. HALF_OPEN: a slow start: one job at a time, then two, four, ...
A worker starts half open, so that a start, too, begins with a call. What opens it is ``worker.flow_control.evidence``.

Each process has its own: a pod whose own network fails must not stop the others, and a hundred pods find their own way
back. That the fleet's probes are few is seen to where they are taken, in ``take.lua``.
"""

from __future__ import annotations

import logging
import random
import time
from enum import Enum
from typing import TYPE_CHECKING

from worker.flow_control.evidence import Evidence
from worker.flow_control.gate import Admit, GateAnswer, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Waits are stretched by up to this share, so that pods do not probe in step.
_JITTER = 0.2
#: Half open after an outage, fewer failures in a row are enough.
_FAILURES_IN_DOUBT = 3
#: What failed before an outage shorter than this is remembered as bad jobs: such a one may have been a block of them.
_SHORT_SECONDS = 3.0
#: A pod that hears that others succeed looks for itself within so many seconds.
_FOLLOW_SECONDS = 1.5
#: An outage is believed when a fresh probe failed, or so many others did and many jobs opened the breaker.
_PROBES_TO_CONFIRM = 2


class State(Enum):
    """Whether jobs pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """A breaker for one kind of failure.

    Args:
        reason: what it is open for, as a stable word.
        advice: what to do about it, in a sentence or two for the person on call.
        failures: failures in a row that open it; 0: it never opens.
        first_wait: seconds to the first probe.
        max_wait: the longest time between two probes, in seconds; the time doubles with each failed one.
        clock: monotonic seconds.
        chance: a number drawn evenly from 0 to 1.
    """

    def __init__(
        self,
        reason: str,
        *,
        advice: str,
        failures: int,
        first_wait: float,
        max_wait: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.reason = reason
        self.advice = advice
        self.state = State.HALF_OPEN
        self.evidence = Evidence()
        self.failures_to_open = failures
        #: Monotonic time since when it is open.
        self.opened_at = 0.0
        self._first_wait = first_wait
        self._max_wait = max_wait
        self._clock = clock
        self._chance = chance
        self._wait = first_wait
        self._probe_at = self._probed_at = 0.0
        self._probes_failed = 0
        self._jobs_that_opened = 0
        self._width = 1
        self._is_doubted = False
        self._was_open = False

    @property
    def is_closed(self) -> bool:
        """Whether jobs pass freely."""
        return self.state is State.CLOSED

    @property
    def is_open(self) -> bool:
        """Whether none but probes pass."""
        return self.state is State.OPEN

    @property
    def is_in_doubt(self) -> bool:
        """Whether it was open and calls do not succeed yet as they should."""
        return self._was_open and self.state is not State.CLOSED

    def ask(self, wanted: int, held: int, stuck: int = 0) -> GateAnswer:
        """How many of the wanted jobs may be taken, beside those held, of whose calls so many take long."""
        if self.state is State.CLOSED:
            return Admit(wanted)
        if self.state is State.HALF_OPEN:
            return self._ask_half_open(wanted, held, stuck)
        wait = self._probe_at - self._clock()
        if wait > 0:
            return Wait(wait, self.reason)
        if wanted <= 0:
            return Admit(0)
        self._probed_at = self._clock()
        self._probe_at = self._probed_at + self._stretched(self._wait)
        return Admit(1, is_probe=True)

    def _ask_half_open(self, wanted: int, held: int, stuck: int) -> GateAnswer:
        """A call that takes long is no news yet: it must not hold up those that would tell more."""
        if self._width == 1 and held:
            return Admit(min(wanted, 1), is_probe=True) if held <= stuck else Admit(0)
        return Admit(max(0, min(wanted, self._width - held + stuck)))

    def give_back_probe(self) -> None:
        """There was no job to probe with, it came to no call, or another gate kept it back: the next one may."""
        if self.state is State.OPEN:
            self._probe_at = self._clock()

    def hurry(self) -> None:
        """Others succeed, or there is reason to hope: probe soon."""
        if self.state is State.OPEN:
            self._probe_at = min(self._probe_at, self._clock() + _FOLLOW_SECONDS * self._chance())

    def succeeded(self, began: float, concurrency: int) -> None:
        """A call that began then was answered; ``concurrency`` is how many jobs run at once in good times."""
        if self.state is State.OPEN and began < self.opened_at:
            return  # it tells of the time before
        if self.state is State.OPEN and self._clock() - self.opened_at > _SHORT_SECONDS:
            self.evidence.forget()
        self.evidence.answered(began)
        if self.state is State.OPEN:
            self.state, self._width, self._wait = State.HALF_OPEN, 2, self._first_wait
            logger.warning("breaker_recovering", extra={"reason": self.reason})
        elif self.state is State.HALF_OPEN:
            self._width += 1
            if self._width >= concurrency:
                self.state, self._is_doubted = State.CLOSED, False
                if self._was_open:
                    self._was_open = False
                    logger.warning("breaker_closed", extra={"reason": self.reason})

    def failed(self, job: str, began: float, *, is_fresh: bool, is_outright: bool = False) -> None:
        """A call for a job failed that began then, and was no probe."""
        if self.state is State.OPEN:
            return
        self.evidence.failed(job, began, is_fresh=is_fresh, is_outright=is_outright)
        if self.failures_to_open <= 0:
            return
        failures = min(_FAILURES_IN_DOUBT, self.failures_to_open) if self._is_doubted else self.failures_to_open
        if self.evidence.is_enough(failures, is_in_doubt=self._is_doubted):
            self._open(self._first_wait, "breaker_reopened" if self._was_open else "breaker_opened")

    def open_now(self) -> None:
        """Open at once, whatever the evidence."""
        if self.state is not State.OPEN:
            self._open(self._first_wait, "breaker_opened")

    def probe_failed(self, *, is_fresh: bool) -> bool:
        """A probe failed while it is open; True if that confirms an outage: what failed in it was nobody's fault."""
        self._probes_failed += 1
        self._wait = min(self._wait * 2, self._max_wait)
        # Counted from when it was sent: one that hung has waited already.
        self._probe_at = max(self._probe_at, self._probed_at + self._stretched(self._wait))
        self._tell("breaker_probe_failed")
        is_confirmed = self._jobs_that_opened > 0 and (
            is_fresh or (self._probes_failed >= _PROBES_TO_CONFIRM and self._jobs_that_opened >= self.failures_to_open)
        )
        if is_confirmed:
            self._jobs_that_opened = 0
        return is_confirmed

    def _open(self, wait: float, event: str) -> None:
        self.state, self._wait, self._was_open, self._is_doubted = State.OPEN, wait, True, True
        self.opened_at = self._clock()
        self._probes_failed = 0
        self._jobs_that_opened = max(1, len(self.evidence.jobs))
        self._probe_at = self._clock() + self._stretched(wait)
        self._tell(event)

    def _tell(self, event: str) -> None:
        wait = round(self._probe_at - self._clock(), 3)
        extra = {
            "reason": self.reason,
            "failures": self.evidence.failures,
            "wait_seconds": wait,
            "advice": self.advice,
        }
        logger.error(event, extra=extra)

    def _stretched(self, wait: float) -> float:
        return wait * (1 + _JITTER * self._chance())
