"""Decides before each take how many jobs this process takes, and from where.

The pause and the rate limit of the whole fleet are in Redis. Each take obeys them there, returns them to this process
and carries its counts to Redis, so none of that costs a round trip of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker.records import TakeRequest
from worker.flow_control.fleet_counts import NO_NEWS, RecentCalls
from worker.flow_control.gate_answer import Wait
from worker.flow_control.held_jobs import JOBS_AT_ONCE
from worker.flow_control.permits import Permits

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.records import Change, Delivery, FleetNews, Taken
    from worker.flow_control.breaker import Breaker
    from worker.flow_control.flow_parts import FlowParts
    from worker.flow_control.pod_breakers import Failure

#: From this many stuck calls on, new jobs are taken from both ends of the queue.
_SUSPICIOUS_STUCK = 3


class Gates:
    """What the runtime asks before each take and reports after it, and what it writes to Redis for the fleet.

    ``clock`` returns monotonic seconds.
    """

    def __init__(
        self, parts: FlowParts, clock: Callable[[], float], on_news: Callable[[FleetNews], None] = lambda _: None
    ) -> None:
        self._on_news = on_news
        self.api: Breaker = parts.api.breaker
        self.token: Breaker = parts.token.breaker
        self.breakers = parts.breakers.all
        self._in_flight = parts.in_flight
        self._counts = parts.counts
        self._calls = parts.calls
        self._limit = parts.limit
        self._token_gate = parts.token
        self._api_gate = parts.api
        self._pod_breakers = parts.breakers
        self._shortage = parts.shortage
        self._retries = parts.retries
        self._queue_ends = parts.queue_ends
        self._held_jobs = parts.held_jobs
        self._permits = Permits(clock)
        self._clock = clock
        self._asked_at = 0.0
        #: The monotonic time at which they last let no job be taken.
        self.held_back_at = float("-inf")

    @property
    def version(self) -> int:
        """The version of the fleet's flow control that this process knows."""
        return self._counts.news.version

    @property
    def rate(self) -> float:
        """The fleet's limit in calls a second; 0: no limit."""
        return self._counts.news.rate

    @property
    def last_failure(self) -> Failure | None:
        """The last call that failed or was refused for load."""
        return self._pod_breakers.last_failure

    @property
    def recent_calls(self) -> RecentCalls:
        """The calls of the fleet in the last half minute, and how many of them failed."""
        return self._counts.recent

    @property
    def is_paused(self) -> bool:
        """True while the fleet takes no jobs because the API asked for a pause."""
        return self._limit.is_paused

    def ask(self) -> TakeRequest | Wait:
        """Return what to take now, or how long to wait and why."""
        now = self._asked_at = self._clock()
        answer = self._ask(now)
        if isinstance(answer, Wait):
            self.held_back_at = now
        return answer

    def _ask(self, now: float) -> TakeRequest | Wait:
        if now < self._limit.paused_until:
            return Wait(self._limit.paused_until - now, "paused")
        if now < self._shortage.until:
            return Wait(self._shortage.until - now, "no_resources")
        self._token_gate.probe_if_new()
        free, stuck = self._in_flight.free_slots(), self._calls.stuck(now)
        answer = self._pod_breakers.ask(free, len(self._in_flight), stuck)
        if isinstance(answer, Wait):
            return answer
        return self._take_request(answer.jobs, stuck, is_probe=answer.is_probe)

    def _take_request(self, jobs: int, stuck: int, *, is_probe: bool) -> TakeRequest:
        is_suspicious = self.api.evidence.is_suspicious or self._api_gate.has_many_bad
        is_spreading = is_probe or stuck >= _SUSPICIOUS_STUCK or is_suspicious
        which_new = self._next_end(is_spreading=is_spreading)
        if jobs > 1 and is_spreading:
            jobs = (jobs + 1) // 2  # the other half from the other end
        elif self._held_jobs.are_in_the_way:
            jobs = min(jobs, JOBS_AT_ONCE)
        limit, in_flight = self._in_flight.limit, self._in_flight.retries
        first = min(self._retries.max_first(limit, in_flight), self._retries.first(jobs))
        return TakeRequest(
            wanted=jobs,
            held=len(self._in_flight),
            which_new=which_new,
            is_probe=is_probe,
            retries_first=0 if self.api.is_in_doubt or self._api_gate.is_outage_near else first,
            max_retries=self._retries.max_total(limit, in_flight),
            answered=self._counts.new_answered,
            failed=self._counts.new_failed,
            unused=self._permits.unused(is_probe=is_probe),
            version=self._counts.news.version,
        )

    def _next_end(self, *, is_spreading: bool) -> str:
        if not is_spreading:
            return "newest" if self._held_jobs.is_newest_due else "oldest"
        newest, oldest = self._calls.new_by_end()
        return "newest" if self._queue_ends.next_is_newest(newest, oldest, self._in_flight.limit) else "oldest"

    def took(self, request: TakeRequest, taken: Taken) -> None:
        """Record the answer of a take; Redis has this process's counts now."""
        self._counts.reported(request)
        self._permits.given_back(request)
        self._held_jobs.took(len(taken.jobs), is_newest=request.which_new == "newest")
        needs_permit = request.is_probe or self._limit.is_rate_limited or taken.fleet.rate > 0
        for delivery in taken.jobs:
            delivery.has_permit = needs_permit
            delivery.is_probe = request.is_probe
            delivery.taken_at = self._asked_at
            delivery.is_newest = request.which_new == "newest" and not delivery.is_retry
        if taken.jobs:
            self._retries.took(len(taken.jobs), sum(delivery.is_retry for delivery in taken.jobs))
        elif request.is_probe:
            self._pod_breakers.give_back_probe()
        self.saw(taken.fleet)

    def not_taken(self) -> None:
        """Record that a take failed."""
        self._pod_breakers.give_back_probe()

    def set_aside(self, delivery: Delivery) -> None:
        """Record that a job is on hold, and makes no call."""
        self._held_jobs.set_aside(is_newest=delivery.is_newest)

    def give_back_permit(self, delivery: Delivery) -> None:
        """Give back the permit, or the probe, of a job that made no call."""
        self._permits.give_back(delivery)
        self._pod_breakers.give_back_probe()

    def saw(self, fleet: FleetNews) -> None:
        """Take note of the fleet's flow control as it is in Redis."""
        known = self._counts.news
        self._on_news(fleet)
        if not self._limit.saw(fleet):
            return
        if fleet.answered > known.answered and known is not NO_NEWS:
            self._token_gate.others_answered()
        self._api_gate.saw(fleet.answered)
        self._limit.raise_if_due()

    def change(self) -> Change | None:
        """Return the change to the fleet's flow control that this process has to write; None: nothing."""
        return self._limit.change()
