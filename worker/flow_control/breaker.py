"""A circuit breaker: while it is open, jobs stay in Redis and single probes test whether calls succeed again.

Its states are those of the pattern (https://martinfowler.com/bliki/CircuitBreaker.html):

- CLOSED: jobs pass.
- OPEN: only probes pass, at growing intervals, each with another job.
- HALF_OPEN: a slow start: one job at a time, and one more with each answered call. A worker starts in this state, so
  that its first jobs come one by one.

``worker.flow_control.evidence`` decides what opens it. Each process has its own breaker: a pod whose own network fails
must not stop the others, and each pod recovers by itself. ``take.lua`` bounds the probes of the whole fleet.
"""

from __future__ import annotations

import logging
import random
import time
from enum import Enum
from typing import TYPE_CHECKING

from worker.flow_control.evidence import Evidence
from worker.flow_control.gate_answer import Admit, GateAnswer, Wait
from worker.observe.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.outcome import Problem

logger = logging.getLogger(__name__)

#: Jitter lengthens waits by up to this share, so that pods do not probe in step.
_JITTER = 0.2
#: While half open after an outage, this many failures in a row open the breaker again.
_FAILURES_IN_DOUBT = 3
#: After an outage shorter than this, the failed jobs count as bad: it may have been a block of bad jobs.
_SHORT_SECONDS = 3.0
#: A pod that learns that other pods succeed probes within this many seconds.
_FOLLOW_SECONDS = 1.5
#: An outage is confirmed when a fresh probe failed, or when many jobs opened the breaker and this many probes failed.
_PROBES_TO_CONFIRM = 2
#: The end of each breaker's advice.
PROBES_GO_ON = "Meanwhile jobs wait in Redis and lose no attempt; once a probe succeeds they go on by themselves."


class State(Enum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """A breaker for one kind of failure.

    Args:
        reason: a stable label for what opens it.
        answered_again: the event in the log when calls are answered again.
        advice: what the operator on call should do, in a sentence or two.
        failures: the failures in a row that open it; 0: it never opens.
        first_wait: the seconds until the first probe.
        max_wait: the longest time between two probes, in seconds; the time doubles with each failed one.
        clock: returns monotonic seconds.
        rng: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        reason: str,
        *,
        answered_again: str,
        advice: str,
        failures: int,
        first_wait: float,
        max_wait: float,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.reason = reason
        self.advice = advice
        self.state = State.HALF_OPEN
        self.evidence = Evidence(failures)
        self.failures_to_open = failures
        #: Why the last call failed, for the log.
        self.last_problem: Problem | None = None
        #: The monotonic time at which it opened.
        self.opened_at = 0.0
        self._first_wait = first_wait
        self._max_wait = max_wait
        self._clock = clock
        self._rng = rng
        self._wait = first_wait
        self._probe_at = self._probed_at = 0.0
        self._probes_failed = 0
        self._jobs_that_opened = 0
        self._width = 1
        self._is_doubted = False
        self._was_open = False
        self._trouble = Trouble(logger, lasts="breaker_still_open", ends=answered_again, clock=clock)

    @property
    def is_closed(self) -> bool:
        """True while jobs pass freely."""
        return self.state is State.CLOSED

    @property
    def is_open(self) -> bool:
        """True while only probes pass."""
        return self.state is State.OPEN

    @property
    def is_in_doubt(self) -> bool:
        """True from its opening until it is closed again."""
        return self._was_open and self.state is not State.CLOSED

    def ask(self, wanted: int, held: int, stuck: int = 0) -> GateAnswer:
        """Return how many jobs may be taken now, or how long to wait.

        Args:
            wanted: the free slots.
            held: the jobs in flight.
            stuck: those of them whose calls take long.
        """
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
        self._probe_at = self._probed_at + self._with_jitter(self._wait)
        return Admit(1, is_probe=True)

    def _ask_half_open(self, wanted: int, held: int, stuck: int) -> GateAnswer:
        """Admit jobs of a slow start. Stuck calls do not count: their result is far off and must not delay others."""
        if self._width == 1 and held:
            return Admit(min(wanted, 1), is_probe=True) if held <= stuck else Admit(0)
        return Admit(max(0, min(wanted, self._width - held + stuck)))

    def give_back_probe(self) -> None:
        """Allow the next probe at once, because the last one made no call."""
        if self.state is State.OPEN:
            self._probe_at = self._clock()

    def probe_soon(self) -> None:
        """Probe soon, because calls of other pods succeed."""
        if self.state is State.OPEN:
            self._probe_at = min(self._probe_at, self._clock() + _FOLLOW_SECONDS * self._rng())

    def succeeded(self, began: float, concurrency: int) -> None:
        """Record an answered call.

        Any success counts, not only a probe's, because each shows that the API answers.

        Args:
            began: the monotonic time when the call began.
            concurrency: the slots of this worker; so many successes end a slow start.
        """
        if self.state is State.OPEN and began < self.opened_at:
            return  # its answer is from before the outage
        if self.state is State.OPEN and self._clock() - self.opened_at > _SHORT_SECONDS:
            self.evidence.forget()
        self.evidence.answered(began)
        if self.state is State.OPEN:
            self.state, self._width, self._wait = State.HALF_OPEN, 2, self._first_wait
        elif self.state is State.HALF_OPEN:
            self._width += 1
            if self._width >= concurrency:
                self.state, self._is_doubted = State.CLOSED, False
                if self._was_open:
                    self._was_open = False
                    logger.info("breaker_closed", extra={"reason": self.reason})
        if self._trouble.is_on:
            self._trouble.over(reason=self.reason)

    def failed(self, job: str, began: float, *, is_fresh: bool, is_outright: bool = False) -> None:
        """Record a failed call that was no probe. Arguments as for :meth:`Evidence.failed`."""
        if self.state is State.OPEN:
            return
        self.evidence.failed(job, began, is_fresh=is_fresh, is_outright=is_outright)
        if self.failures_to_open <= 0:
            return
        failures = min(_FAILURES_IN_DOUBT, self.failures_to_open) if self._is_doubted else self.failures_to_open
        if self.evidence.is_enough(failures, is_in_doubt=self._is_doubted):
            self._open("reopened" if self._was_open else "opened")

    def open_now(self) -> None:
        """Open at once, without evidence."""
        if self.state is not State.OPEN:
            self._open("opened")

    def probe_failed(self, *, is_fresh: bool) -> bool:
        """Record a failed probe. True if it confirms an outage, so that the failures before it were no job's fault."""
        self._probes_failed += 1
        self._wait = min(self._wait * 2, self._max_wait)
        # Counted from when the probe was sent: while it hung, that was waiting too.
        self._probe_at = max(self._probe_at, self._probed_at + self._with_jitter(self._wait))
        self._log("breaker_probe_failed", "probe_failed")
        is_confirmed = self._jobs_that_opened > 0 and (
            is_fresh or (self._probes_failed >= _PROBES_TO_CONFIRM and self._jobs_that_opened >= self.failures_to_open)
        )
        if is_confirmed:
            self._jobs_that_opened = 0
        return is_confirmed

    def _open(self, what: str) -> None:
        self.state, self._wait, self._was_open, self._is_doubted = State.OPEN, self._first_wait, True, True
        self.opened_at = self._clock()
        self._probes_failed = 0
        self._jobs_that_opened = max(1, len(self.evidence.jobs))
        self._probe_at = self._clock() + self._with_jitter(self._wait)
        self._log("breaker_opened" if what == "opened" else "breaker_reopened", what)

    def _log(self, event: str, what: str) -> None:
        self._trouble.happened(
            event,
            what,
            reason=self.reason,
            failures=self.evidence.failures,
            wait=round(self._probe_at - self._clock(), 3),
            status=None if self.last_problem is None else self.last_problem.status,
            problem=None if self.last_problem is None else self.last_problem.detail,
            advice=self.advice,
        )

    def _with_jitter(self, wait: float) -> float:
        return wait * (1 + _JITTER * self._rng())
