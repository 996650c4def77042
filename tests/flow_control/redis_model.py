"""What Redis does for flow control, in Python: the lists a take reads, permits, probes, the limit and the pause.

It follows ``take.lua``, ``promote.lua``, ``throttle.lua``, ``delay.lua``, ``expire.lua`` and ``restore_attempts.lua``
as far as flow control goes, and nothing else of them: no suspects, no priorities, no leases. ``test_redis_model.py``
holds :class:`FleetModel`, where all the arithmetic is, to the real scripts.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from tests.flow_control.simulation import BEGAN_MS
from worker.broker.move_limits import BURST_US, LIMIT_BURST_US, PROBE_GAP_MS, UPKEEP_JOBS
from worker.broker.records import TAKE_JOBS, Delivery, FleetNews, Promoted, Taken, TakeState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from worker.broker.records import Change, Delay, TakeRequest

_MAX_INTERVAL_US = 20_000_000
QUEUE = "moderation.lock"


@dataclass(frozen=True, slots=True)
class Held:
    """A take that may take nothing now."""

    state: TakeState
    wait_ms: int


class FleetModel:
    """The keys of the fleet: ``limit``, ``pause`` and ``rate``."""

    def __init__(self, now_us: Callable[[], int], *, interval_us: int = 0) -> None:
        self._now_us = now_us
        self._configured_us = interval_us
        self.version = self.epoch = self.answered = self.failed = 0
        self.rate = 0.0
        self.state: bytes | None = None
        self.paused_until_ms = 0
        self._free_at = 0
        self._probe_at_ms = 0
        self._interval_us = 0

    @property
    def now_ms(self) -> int:
        """As ``now_ms()`` of the scripts."""
        return self._now_us() // 1000

    def news(self, known_version: int) -> FleetNews:
        """What a worker is told that knows this version."""
        return FleetNews(
            version=self.version,
            epoch=self.epoch,
            rate=self.rate,
            answered=self.answered,
            failed=self.failed,
            paused_ms=max(0, self.paused_until_ms - self.now_ms),
            state=None if self.version == known_version else self.state,
        )

    def admit(self, request: TakeRequest) -> Held | int:
        """How many jobs a take may bring, as far as the fleet is concerned."""
        self.answered += request.answered
        self.failed += request.failed
        interval, burst = self._pace()
        now = self._now_us()
        free_at = self._free_at
        if interval:
            burst = burst // interval * interval
            if free_at < now or free_at > now + burst + interval + 1_000_000:
                free_at = now
            if request.unused and free_at > now:  # also in a pause
                free_at = self._free_at = max(now, free_at - request.unused * interval)
        paused_ms = self.paused_until_ms - self.now_ms
        if paused_ms > 0:
            return Held(TakeState.PAUSED, paused_ms)
        if request.is_probe and not request.unused:
            wait_ms = self._probe_at_ms - self.now_ms
            if 0 < wait_ms <= PROBE_GAP_MS:
                return Held(TakeState.LIMITED, wait_ms)
        if not interval:
            return request.wanted
        permits = math.floor((now + burst - free_at) / interval) + 1
        if permits < 1:
            return Held(TakeState.LIMITED, math.ceil((free_at - burst / 2 - now) / 1000))
        self._free_at = free_at
        return min(request.wanted, permits)

    def _pace(self) -> tuple[int, int]:
        """The microseconds between two calls, and those that a burst may be ahead."""
        interval, burst = self._configured_us, BURST_US
        if self.rate > 0:
            limit_us = min(math.ceil(1_000_000 / self.rate), _MAX_INTERVAL_US)
            if limit_us > interval:
                interval, burst = limit_us, LIMIT_BURST_US
        self._interval_us = interval
        return interval, burst

    def use(self, jobs: int, *, is_probe: bool) -> None:
        """So many jobs were taken as :meth:`admit` allowed."""
        if self._interval_us:
            self._free_at += jobs * self._interval_us
        if is_probe and jobs:
            self._probe_at_ms = self.now_ms + PROBE_GAP_MS

    def throttle(self, change: Change) -> tuple[bool, FleetNews]:
        """Change the limit, where nobody did so meanwhile."""
        if change.state:
            if change.version != self.version:
                return False, self.news(-1)
            self.version = max(self.version + 1, math.floor(self.now_ms))
            self.epoch = change.epoch
            self.rate = float(f"{change.rate:.6f}")
            self.state = change.state.encode()
        pause_ms = math.ceil(change.pause_seconds * 1000)
        if pause_ms > max(0, self.paused_until_ms - self.now_ms):
            self.paused_until_ms = self.now_ms + pause_ms
        return True, self.news(-1)


@dataclass(slots=True)
class Record:
    """A job's record."""

    raw: bytes
    first_ms: int
    token: str
    calls: int = 0
    is_retry: bool = False
    progress: bytes = b""
    deadline_ms: int = 0


class RedisModel:
    """One queue, and the fleet's keys."""

    def __init__(self, now: Callable[[], float], *, interval_us: int = 0, max_age_ms: int = 0) -> None:
        self._now = now
        self.fleet = FleetModel(lambda: BEGAN_MS * 1000 + round(now() * 1_000_000), interval_us=interval_us)
        self._max_age_ms = max_age_ms
        self._refs = count()
        self.new: deque[bytes] = deque()
        self.again: deque[str] = deque()
        self.retries: deque[str] = deque()
        self.records: dict[str, Record] = {}
        self._delayed: list[tuple[int, str]] = []
        self._deadlines: list[tuple[int, str]] = []
        self._ready: dict[str, int] = {}
        self._promoted_ms = -1000

    def take(self, request: TakeRequest, token: str) -> Taken:
        """``take.lua``."""
        allowed = self.fleet.admit(request)
        server_ms = self.fleet.now_ms
        if isinstance(allowed, Held):
            return Taken(
                allowed.state, server_ms, allowed.wait_ms, self.fleet.news(request.version), [], emptied_queue=False
            )
        wanted = min(allowed, TAKE_JOBS)
        jobs: list[Delivery] = []
        if request.is_probe:
            self._take_new(jobs, wanted, request.which_new, token)
            self._take_again(jobs, wanted, token)
            self._take_retries(jobs, wanted, wanted, token)
        else:
            self._take_again(jobs, wanted, token)
            before = len(jobs)
            self._take_retries(jobs, request.retries_first, wanted, token)
            retried = len(jobs) - before
            self._take_new(jobs, wanted, request.which_new, token)
            self._take_retries(jobs, request.max_retries - retried, wanted, token)
        self.fleet.use(len(jobs), is_probe=request.is_probe)
        is_limited = self.fleet.rate > 0 or self.fleet._configured_us > 0
        is_short = len(jobs) < min(request.wanted, TAKE_JOBS)
        state = TakeState.JOBS if jobs else TakeState.EMPTY
        is_all = not jobs or (is_short and not is_limited)
        return Taken(state, server_ms, 0, self.fleet.news(request.version), jobs, is_all)

    def _take_again(self, jobs: list[Delivery], wanted: int, token: str) -> None:
        while len(jobs) < wanted and self.again:
            jobs.append(self._hold_again(self.again.popleft(), token))

    def _take_retries(self, jobs: list[Delivery], most: int, wanted: int, token: str) -> None:
        while most > 0 and len(jobs) < wanted and self.retries:
            most -= 1
            jobs.append(self._hold_again(self.retries.popleft(), token))

    def _take_new(self, jobs: list[Delivery], wanted: int, which: str, token: str) -> None:
        pop = self.new.popleft if which == "oldest" else self.new.pop
        while len(jobs) < wanted and self.new:
            jobs.append(self._hold_new(pop(), token))

    def _hold_new(self, raw: bytes, token: str) -> Delivery:
        ref = f"{next(self._refs)}"
        self.records[ref] = Record(raw, self.fleet.now_ms, token)
        return self._delivery(ref, token)

    def _hold_again(self, ref: str, token: str) -> Delivery:
        self._ready.pop(ref, None)
        self.records[ref].token = token
        return self._delivery(ref, token)

    def _delivery(self, ref: str, token: str) -> Delivery:
        found = self.records[ref]
        return Delivery(
            ref, token, found.raw, len(found.raw), found.first_ms, found.calls, 0, math.inf, QUEUE,
            is_retry=found.is_retry, progress=found.progress,
        )  # fmt: skip

    def complete(self, delivery: Delivery) -> None:
        """``complete.lua``."""
        del self.records[delivery.ref]

    def delay(self, delay: Delay) -> None:
        """``delay.lua``."""
        job = delay.delivery
        record = self.records[job.ref]
        record.token, record.calls = "", job.attempts
        record.is_retry = record.is_retry or delay.is_retry
        record.progress = delay.progress or record.progress
        due = self.fleet.now_ms + math.ceil(delay.seconds * 1000)
        if delay.deadline_ms:
            record.deadline_ms = delay.deadline_ms
            due = max(self.fleet.now_ms, min(due, delay.deadline_ms))
        heapq.heappush(self._delayed, (due, job.ref))

    def promote(self, *, between_ms: int, version: int) -> Promoted:
        """``promote.lua``."""
        now = self.fleet.now_ms
        moved: int | None = None
        if not 0 <= now - self._promoted_ms < between_ms:
            self._promoted_ms = now
            moved = 0
            while self._delayed and self._delayed[0][0] <= now and moved < UPKEEP_JOBS:
                _, ref = heapq.heappop(self._delayed)
                record = self.records[ref]
                (self.retries if record.is_retry else self.again).append(ref)
                if self._max_age_ms:
                    deadline = record.deadline_ms or now + self._max_age_ms
                    self._ready[ref] = deadline
                    heapq.heappush(self._deadlines, (deadline, ref))
                moved += 1
        next_due = max(0, self._delayed[0][0] - now) if self._delayed else None
        while self._deadlines and self._ready.get(self._deadlines[0][1]) != self._deadlines[0][0]:
            heapq.heappop(self._deadlines)
        next_deadline = max(0, self._deadlines[0][0] - now) if self._deadlines else None
        return Promoted(moved, next_due, next_deadline, self.fleet.news(version), 0)

    def expire(self, token: str, at_most: int = 50) -> list[Delivery]:
        """``expire.lua``."""
        jobs: list[Delivery] = []
        while len(jobs) < at_most and self._deadlines and self._deadlines[0][0] <= self.fleet.now_ms:
            deadline, ref = heapq.heappop(self._deadlines)
            if self._ready.get(ref) == deadline:
                (self.retries if self.records[ref].is_retry else self.again).remove(ref)
                jobs.append(self._hold_again(ref, token))
        return jobs

    def restore_attempts(self, jobs: Iterable[tuple[str, int]]) -> None:
        """``restore_attempts.lua``."""
        for ref, attempts in jobs:
            record = self.records.get(ref)
            if record is not None and record.token == "" and record.calls:
                record.calls = max(0, record.calls - attempts)

    def waiting(self) -> Sequence[int]:
        """Jobs that are new, ready again, ready retries and delayed."""
        return len(self.new), len(self.again), len(self.retries), len(self._delayed)
