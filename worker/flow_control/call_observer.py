"""Learns from each call, and decides what a failed one costs its job and whether a job may keep its slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from tasks.outcome import Problem, ProblemType
from tasks.verdict import Blame

if TYPE_CHECKING:
    from tasks.run import Run
    from worker.flow_control.flow_parts import FlowParts

#: Jobs that wait for their next call may keep at most this share of the slots.
_WAITING_SHARE = 0.25


class CallObserver:
    """What the handler reports about each call, and asks between two: its ``tasks.flow.Flow``."""

    def __init__(self, parts: FlowParts) -> None:
        self._in_flight = parts.in_flight
        self._counts = parts.counts
        self._calls = parts.calls
        self._limit = parts.limit
        self._token = parts.token
        self._api = parts.api
        self._breakers = parts.breakers
        self._shortage = parts.shortage
        self._retries = parts.retries
        self._queue_ends = parts.queue_ends
        self._waiting_in_slots = 0

    @property
    def doubts_token(self) -> bool:
        """True if calls are answered 401 just now, so that a second try with the same token is useless."""
        return self._token.is_doubted

    @property
    def needs_permits(self) -> bool:
        """True if each call needs a permit, which only a take gives."""
        return self._limit.needs_permits

    def begins(self, run: Run) -> None:
        """Record that a call begins."""
        run.epoch = self._counts.news.epoch
        self._calls.begins(run)

    def answered(self, run: Run) -> None:
        """Record that a call was answered, with a confirmation or with a final refusal."""
        began = self._call_is_over(run, well=True)
        self._counts.call_answered(run)
        self._shortage.answered()
        self._token.answered(began, self._in_flight.limit)
        self._api.answered(began, self._in_flight.limit)
        if run.is_retry:
            self._retries.ended(well=True)

    def refused(self, run: Run, status: int, retry_after: float | None) -> float:
        """Record that the API refused a call for load; returns the seconds that its job waits at least."""
        if run.progress.problem is not None:
            self._breakers.note_failure(run.progress.problem)
        return self._limit.refused(run, status, retry_after, self._calls.ended_behind(run))

    def failed(self, run: Run, blame: Blame, problem: Problem) -> int:
        """Record a failed call; returns how many attempts it costs its job."""
        if blame is Blame.RESOURCES:
            self._lacks_resources(run, problem)
            return 0
        self._breakers.note_failure(problem)
        began = self._call_is_over(run, well=False)
        match blame:
            case Blame.TOKEN:
                return self._token.refused(run, began)
            case Blame.API | Blame.NETWORK:
                return self._api_failed(run, began, is_outright=blame is Blame.NETWORK)
            case Blame.JOB:
                self._api.breaker.succeeded(began, self._in_flight.limit)
                return 1
            case Blame.WORKER:
                return 1
            case _:
                assert_never(blame)

    def _call_is_over(self, run: Run, *, well: bool) -> float:
        """Record the end of a call; returns when it began."""
        if not run.is_retry:
            self._queue_ends.ended(is_newest=run.is_newest, well=well)
        return self._calls.ended(run, well=well)

    def _api_failed(self, run: Run, began: float, *, is_outright: bool) -> int:
        self._counts.call_failed(run)
        if run.is_retry:
            self._retries.ended(well=False)
        is_token_refused = self._token.breaker.is_open
        return self._api.failed(run, began, is_outright=is_outright, is_token_refused=is_token_refused)

    def _lacks_resources(self, run: Run, problem: Problem) -> None:
        self._calls.ended(run, well=None)
        if run.is_probe:
            self._breakers.give_back_probe()
        self._shortage.note(problem)

    def holds_back(self) -> bool:
        """True if retries must go back through Redis, because only a take checks what is in force now.

        That is so while the fleet is paused, a breaker is not closed, or a rate limit is set.
        """
        return self._limit.needs_permits or self._limit.is_paused or self._breakers.is_any_in_doubt

    def may_wait_in_slot(self) -> bool:
        """Return True if a job may keep its slot until its next call."""
        max_waiting = max(1, int(self._in_flight.limit * _WAITING_SHARE))
        is_bad_time = self._calls.failed_late or self._api.has_many_bad or self._api.is_outage_near
        return not (self.holds_back() or is_bad_time) and self._waiting_in_slots < max_waiting

    def waits_in_slot(self, change: int) -> None:
        """Count one more (1) or one less (-1) job that waits in its slot."""
        self._waiting_in_slots += change

    def reason(self) -> Problem:
        """Return the reason why no call was made for a job that has expired."""
        limit, last = self._limit, self._breakers.last_failure
        if limit.is_paused or self._counts.news.rate > 0 or (limit.is_rate_limited and not self._api.breaker.is_open):
            return Problem(
                ProblemType.RATE_LIMITED, "The API asked for fewer calls, or the rate limit left it no call."
            )
        if last is not None and self._breakers.is_any_open:
            return last.problem
        return Problem(ProblemType.TIMEOUT, "No call was made in time.")
