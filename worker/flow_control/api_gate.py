"""Holds calls back while the API is down, and decides what a failed call costs its job.

A failed call costs an attempt, unless the API is known to be down. Once a probe confirms that it is, jobs get the
attempts back that they lost before it was recognised. Only a job that is itself at fault pays even then.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from worker.flow_control.breaker import PROBES_GO_ON, Breaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.run import Run
    from worker.flow_control.fleet_counts import FleetCounts

_FIRST_PROBE_SECONDS = 0.5
_MAX_PROBE_SECONDS = 10.0
#: A job is at fault once it failed so often while other calls were answered since its previous failure.
_FAULTS = 2
#: At most this many calls of a run of failures get their attempts back.
_RUN = 1000
#: From this share of bad fresh jobs on, new jobs are taken from both ends of the queue, so that a block of bad ones at
#: the front does not hold up the others, and no job waits in its slot.
_MANY_BAD = 0.1
_ADVICE = (
    "Calls to the API fail one after the other, whatever the job. "
    f"If this lasts, see whether the API is up and whether API_URL is right. {PROBES_GO_ON}"
)


class ApiGate:
    """The breaker of the API, and the run of failures that may open it.

    Args:
        counts: the calls of the fleet.
        failures: the failures in a row that open the breaker; 0 for no breaker.
        restore_attempts: lowers the attempts of jobs that wait in Redis, by the key of their runs.
        clock: returns monotonic seconds.
        rng: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        counts: FleetCounts,
        *,
        failures: int,
        restore_attempts: Callable[[Counter[tuple[str, str]]], None],
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self.breaker = Breaker(
            "api_down",
            answered_again="api_available",
            advice=_ADVICE,
            failures=failures,
            first_wait=_FIRST_PROBE_SECONDS, max_wait=_MAX_PROBE_SECONDS,
            clock=clock, rng=rng,
        )  # fmt: skip
        self._counts = counts
        self._restore_attempts = restore_attempts
        self._in_run: deque[tuple[float, Run]] = deque(maxlen=_RUN)
        self._answered_when_opened = 0

    @property
    def is_outage_near(self) -> bool:
        """True if calls fail in a row without an answer between them that would make it the jobs' fault.

        A job that tries again in its slot would then only lose attempts, and new jobs are better evidence.
        """
        return self.breaker.failures_to_open > 0 and self.breaker.evidence.failures > 1

    @property
    def has_many_bad(self) -> bool:
        """True if many fresh jobs fail while the API is up."""
        return self.breaker.evidence.bad_share > _MANY_BAD

    def saw(self, answered: int) -> None:
        """Take note of how many calls the API answered the fleet. If it answers others again, probe soon."""
        if self.breaker.is_open and answered > self._answered_when_opened:
            self._answered_when_opened = answered
            self.breaker.probe_soon()

    def answered(self, began: float, concurrency: int) -> None:
        """Record an answered call. Arguments as for :meth:`Breaker.succeeded`."""
        self.breaker.succeeded(began, concurrency)
        while self._in_run and self._in_run[0][0] < began and not self.breaker.is_open:
            self._in_run.popleft()

    def failed(self, run: Run, began: float, *, is_outright: bool, is_token_refused: bool) -> int:
        """Record a call that failed for the API or the network; returns how many attempts it costs its job.

        Args:
            run: the job.
            began: the monotonic time when the call began.
            is_outright: there was no connection, which can be no job's fault.
            is_token_refused: the token's breaker is open, so that jobs lose no attempts now.
        """
        is_at_fault = self._note_fault(run)
        breaker = self.breaker
        if breaker.is_open and run.is_probe:
            if is_at_fault:
                breaker.give_back_probe()  # a job at fault says nothing about the API
            elif breaker.probe_failed(is_fresh=is_outright or not run.is_retry):
                self._restore_attempts_of_run()
        was_open = breaker.is_open
        breaker.failed(run.job, began, is_fresh=not run.is_retry, is_outright=is_outright)
        if was_open or is_token_refused:
            return int(is_at_fault)
        if breaker.is_open:
            self._answered_when_opened = self._counts.answered
        self._in_run.append((began, run))
        return 1

    def _note_fault(self, run: Run) -> bool:
        """Count a failed call of a job; True if the job is at fault, whatever the API does now."""
        progress = run.progress
        answered = self._counts.answered
        progress.faults += progress.answered is not None and answered > progress.answered
        progress.answered = answered
        return progress.faults >= _FAULTS

    def _restore_attempts_of_run(self) -> None:
        """Give back the attempts that an outage cost before it was recognised."""
        waiting: Counter[tuple[str, str]] = Counter()
        for _, run in self._in_run:
            if run.progress.faults >= _FAULTS:
                continue
            if run.is_over:
                waiting[run.key] += 1
            else:
                run.attempts -= 1
        self._in_run.clear()
        if waiting:
            self._restore_attempts(waiting)
