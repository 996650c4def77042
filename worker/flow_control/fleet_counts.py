"""Counts the calls of the whole fleet, and measures its rate by them.

Redis has the counts of the fleet, and each take returns them. What this process counted since its last take is not in
them yet, so it is added here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from worker.broker.records import FleetNews
from worker.flow_control.limit import MAX_MEASURE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.run import Run
    from worker.broker.records import TakeRequest

#: The time between two samples of the fleet's counts, which measure its rate, in seconds.
_COUNTS_APART_SECONDS = 0.05
#: The time that operators are told of, and the time between two samples of the counts for that, in seconds.
RECENT_SECONDS, _RECENT_APART_SECONDS = 30.0, 5.0

NO_NEWS = FleetNews(version=0, epoch=0, rate=0.0, answered=0, failed=0, paused_ms=0, state=None)


class RecentCalls(NamedTuple):
    """The calls of the fleet in the last half minute, without those refused for load or for the token."""

    ended: int
    failed: int


class FleetCounts:
    """What Redis says of the fleet, and what this process has counted since.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        #: The fleet's flow control as Redis last had it.
        self.news = NO_NEWS
        #: The calls of this process that Redis does not know yet.
        self.new_answered = self.new_failed = 0
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        self._recent: deque[tuple[float, RecentCalls]] = deque()

    @property
    def answered(self) -> int:
        """The calls of the fleet that the API answered."""
        return self.news.answered + self.new_answered

    @property
    def accepted(self) -> int:
        """The calls of the fleet that the API did not refuse for load."""
        return self.news.answered + self.news.failed + self.new_answered + self.new_failed

    @property
    def recent(self) -> RecentCalls:
        """The calls of the last half minute, or since this process began to count, and how many of them failed."""
        if not self._recent:
            return RecentCalls(0, 0)
        _, then = self._recent[0]
        return RecentCalls(max(0, self.accepted - then.ended), max(0, self.news.failed + self.new_failed - then.failed))

    def call_answered(self, run: Run) -> None:
        """Count an answered call. One from before a cut says nothing about the new rate."""
        self.new_answered += run.epoch == self.news.epoch

    def call_failed(self, run: Run) -> None:
        """Count a failed call, as :meth:`call_answered`."""
        self.new_failed += run.epoch == self.news.epoch

    def reported(self, request: TakeRequest) -> None:
        """Record that Redis knows the counts of this take."""
        self.new_answered -= request.answered
        self.new_failed -= request.failed

    def saw(self, news: FleetNews) -> None:
        """Take over what Redis says, and sample the counts."""
        self.news = news
        now = self._clock()
        if not self._samples or now - self._samples[-1][0] >= _COUNTS_APART_SECONDS:
            self._samples.append((now, self.accepted))
        while self._samples[0][0] < now - MAX_MEASURE_SECONDS:
            self._samples.popleft()
        if not self._recent or now - self._recent[-1][0] >= _RECENT_APART_SECONDS:
            self._recent.append((now, RecentCalls(self.accepted, news.failed + self.new_failed)))
            while self._recent[0][0] < now - RECENT_SECONDS:
                self._recent.popleft()

    def accepted_per_second(self, seconds: float) -> float:
        """Return how many calls a second of the fleet the API accepted in the last ``seconds``."""
        now = self._clock()
        begin, then = now, self.accepted
        for at, accepted in reversed(self._samples):
            begin, then = at, accepted
            if now - at >= seconds:
                break
        return max(0, self.accepted - then) / max(seconds, now - begin)
