"""This process's part in the fleet's rate limit and pauses, which are in Redis.

It obeys what Redis says, and makes a change where the API refuses its calls for load or the rate may rise. The
functions of ``worker.flow_control.limit`` compute the new state. A change is based on the version that this process
knows, and Redis accepts it only if no other worker was faster.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from worker.broker.records import Change
from worker.flow_control import limit as limits
from worker.observe.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.run import Run
    from worker.broker.records import FleetNews
    from worker.flow_control.fleet_counts import FleetCounts

logger = logging.getLogger(__name__)

#: A job that is refused for load again is itself the reason if so many other calls were answered since, less one for
#: each time that it was refused.
_OTHERS_ANSWERED = 4
#: Such a job waits by itself: so many seconds, twice as long after each refusal up to the sixth.
_OWN_WAIT_SECONDS = 0.5
_OWN_WAIT_DOUBLINGS = 6
#: Any other job waits so many seconds at most, because the pause and the rate limit of the fleet hold it back.
_MAX_SHARED_WAIT_SECONDS = 1.0
#: Jitter in seconds before a pod raises the rate, so that one pod does it and not all at once.
_RAISE_JITTER_SECONDS = 0.25
#: Without a limit, refusals of less than this share of the calls in a second do not mean that the rate is too high.
_STRAY_SHARE = 0.05
_STRAY_PAUSE_SECONDS = 0.5
#: A call from before a cut may ask for a longer pause; by less than this, in seconds, it is the same one.
_SAME_PAUSE_SECONDS = 0.1


class FleetLimit:
    """The rate limit and the pause of the fleet, as this process knows and changes them.

    Args:
        counts: the calls of the fleet.
        name: this worker's name in Redis.
        is_rate_limited: RATE_LIMIT_PER_SECOND is set, so that every call needs a permit.
        max_pause: the longest wait that the API may ask for, in seconds.
        changes: called when :meth:`change` has something to write.
        server_ms: returns the time of the Redis server, in milliseconds.
        clock: returns monotonic seconds.
        rng: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        counts: FleetCounts,
        *,
        name: str,
        is_rate_limited: bool,
        max_pause: float,
        changes: Callable[[], None],
        server_ms: Callable[[], float],
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self.is_rate_limited = is_rate_limited
        #: The monotonic time until which the fleet takes no jobs.
        self.paused_until = 0.0
        self._limit = limits.NO_LIMIT
        self._counts = counts
        self._name = name
        self._max_pause = max_pause
        self._changes = changes
        self._server_ms = server_ms
        self._clock = clock
        self._rng = rng
        self._refusal: limits.LoadRefusal | None = None
        self._longer_pause = 0.0
        self._is_unexplained = False
        self._refused_at: deque[float] = deque()
        self._raise_late_ms = 0.0
        self._trouble = Trouble(
            logger, lasts="fleet_still_paused", ends="fleet_resumed", level=logging.WARNING, clock=clock
        )

    @property
    def is_paused(self) -> bool:
        """True while the fleet takes no jobs because the API asked for a pause."""
        return self._clock() < self.paused_until

    @property
    def needs_permits(self) -> bool:
        """True if each call needs a permit, which only a take gives."""
        return self.is_rate_limited or self._counts.news.rate > 0

    def saw(self, news: FleetNews) -> bool:
        """Take note of the limit as it is in Redis; returns False if a newer answer has overtaken this one."""
        known = self._counts.news
        if news.version != known.version:
            if news.state is None and news.version:
                return False
            self._raise_late_ms = 1000 * _RAISE_JITTER_SECONDS * self._rng()
            self._limit = limits.NO_LIMIT if news.state is None else limits.from_json(news.state)
            self._is_unexplained = news.state is not None and self._limit.rate == 0 and news.rate > 0
            if news.epoch != known.epoch or (news.rate > 0) != (known.rate > 0):
                logger.info("fleet_limit", extra=limits.describe(self._limit))
        if news.epoch != known.epoch:
            self._refusal = None  # another worker was refused and has cut the rate
        self._counts.saw(news)
        now = self._clock()
        if news.paused_ms:
            self.paused_until = now + news.paused_ms / 1000
        elif self._refusal is None and not self._longer_pause:  # else our pause is still on its way to Redis
            self.paused_until = min(self.paused_until, now)
        if self._trouble.is_on and not self.is_paused:
            self._trouble.over(calls_per_second=round(news.rate, 3))
        return True

    def raise_if_due(self) -> None:
        """Write a raise of the rate, if it is time for one and the fleet does not pause."""
        if not self._counts.news.paused_ms and self._raised() is not None:
            self._changes()

    def refused(self, run: Run, status: int, retry_after: float | None, older: int) -> float:
        """Record that the API refused a call for load; returns the seconds that its job waits at least.

        Args:
            run: the job.
            status: the HTTP status.
            retry_after: the wait that the API asked for, in seconds.
            older: the calls under way that began before this one.
        """
        progress, answered = run.progress, self._counts.answered
        others = 0 if progress.answered is None else answered - progress.answered
        is_own = progress.load_refusals > 0 and others >= max(1, _OTHERS_ANSWERED - progress.load_refusals)
        progress.load_refusals += 1
        progress.answered = answered
        own_wait = _OWN_WAIT_SECONDS * 2.0 ** min(progress.load_refusals, _OWN_WAIT_DOUBLINGS)
        own_wait = min(self._max_pause, own_wait)
        if not is_own:
            self._note_refusal(run, status, retry_after, older)
            own_wait = min(own_wait, _MAX_SHARED_WAIT_SECONDS)
        return max(retry_after or 0.0, own_wait * (0.5 + self._rng()))

    def change(self) -> Change | None:
        """Return the change to the fleet's flow control that this process has to write; None: nothing.

        It is based on the newest known version.
        """
        known = self._counts.news
        if self._refusal is not None:
            lowered, pause = limits.cut(
                self._limit, self._refusal,
                now_ms=self._server_ms(), by=self._name, max_pause=self._max_pause,
            )  # fmt: skip
            why = f"the API answered {self._refusal.status} to {self._name}"
            return Change(known.version, known.epoch + 1, lowered.rate, lowered.to_json(), pause, why)
        if self._longer_pause:
            pause, self._longer_pause = self._longer_pause, 0.0
            return Change(known.version, known.epoch, known.rate, "", pause, "the API answered Retry-After")
        raised = self._raised()
        if raised is not None:
            return Change(known.version, known.epoch, raised.rate, raised.to_json(), 0.0, "")
        return None

    def _note_refusal(self, run: Run, status: int, retry_after: float | None, older: int) -> None:
        if self._is_stray():
            # One of very many calls: pause as the API asks, but do not cut the rate.
            seconds = _STRAY_PAUSE_SECONDS if retry_after is None else retry_after
            if self._clock() + seconds > self.paused_until:
                self._log_pause(seconds, status, self._counts.news.rate)
                self._pause_longer(seconds)
        elif run.epoch == self._counts.news.epoch and self._refusal is None:
            self._cut(status, retry_after, older)
        elif retry_after is not None and self._clock() + retry_after > self.paused_until + _SAME_PAUSE_SECONDS:
            # A call from before the cut says nothing about the new rate, but it may ask for a longer pause.
            self._pause_longer(retry_after)

    def _is_stray(self) -> bool:
        """Return True if hardly any call is refused and there is no limit yet."""
        now = self._clock()
        self._refused_at.append(now)
        while now - self._refused_at[0] > 1:
            self._refused_at.popleft()
        return not self._limit.rate and len(self._refused_at) < _STRAY_SHARE * self._accepted_per_second()

    def _cut(self, status: int, retry_after: float | None, older: int) -> None:
        """Cut the rate, and pause."""
        accepted_per_second = self._accepted_per_second() + (older if not self._limit.rate else 0)
        self._refusal = limits.LoadRefusal(status, retry_after, self._counts.accepted, accepted_per_second)
        change = self.change()
        if change is not None:
            self._log_pause(change.pause_seconds, status, change.rate)
            self.paused_until = max(self.paused_until, self._clock() + change.pause_seconds)
            self._changes()

    def _log_pause(self, seconds: float, status: int, rate: float) -> None:
        self._trouble.happened(
            "fleet_paused", "paused", wait=round(seconds, 3), status=status, calls_per_second=round(rate, 3)
        )

    def _pause_longer(self, seconds: float) -> None:
        self._longer_pause = seconds
        self.paused_until = self._clock() + seconds
        self._changes()

    def _raised(self) -> limits.Limit | None:
        if self._limit.rate == 0:
            # A rate without its state was written by mistake. No worker would ever raise it, so it is removed.
            return limits.NO_LIMIT if self._is_unexplained else None
        return limits.raised(
            self._limit,
            now_ms=self._server_ms() - self._raise_late_ms,
            accepted=self._counts.accepted,
            accepted_per_second=self._accepted_per_second(),
        )

    def _accepted_per_second(self) -> float:
        """Return how many calls a second of the fleet the API accepted recently."""
        return self._counts.accepted_per_second(limits.measure_seconds(self._limit, self._server_ms()))
