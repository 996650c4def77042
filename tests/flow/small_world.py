"""One worker, its queue and an API, in a model small enough to live through hours in a moment.

Real are the gates, the hands and the policy of retries; the rest is what Redis and the worker make of them, in a few
lines: new jobs, jobs that come again, and jobs that wait.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from tasks.retry import IN_PLACE_SECONDS, RetryPolicy
from tests.flow.clock import Clock
from worker.broker.moves import Delivery
from worker.flow.flow import Flow
from worker.gate import Wait
from worker.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.verdict import Blame

CALL_SECONDS = 0.05
ASK_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class Job:
    """A job and what became of it."""

    name: str
    attempts: int = 0
    calls: int = 0
    outcome: str = ""
    delivery: Delivery = field(init=False)

    def __post_init__(self) -> None:
        self.delivery = Delivery(self.name, "t", b"", 0, 0, 0, 0, 0.0, "q")


class SmallWorld:
    """A world in which ``fails(seconds, job)`` says how a call at that time ends.

    Args:
        fails: whose fault the failure of a call is; None: it succeeds.
        concurrency: how many jobs run at once.
        max_attempts: calls that a job has.
        seed: for all that is left to chance.
    """

    def __init__(
        self,
        fails: Callable[[float, str], Blame | None],
        *,
        concurrency: int = 20,
        max_attempts: int = 4,
        seed: int = 1,
    ) -> None:
        self._fails = fails
        self._random = Random(seed)
        self._clock = Clock()
        self._began = self._clock.now
        self._numbers = count()
        self._closed_until = 0.0
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._new: deque[Job] = deque()
        self._again: deque[Job] = deque()
        self._hands = Hands(concurrency)
        self.flow = Flow(
            self._hands, failures=10, is_rate_limited=False, pause=lambda _: None, clock=self._clock,
            chance=self._random.random,
        )  # fmt: skip
        self._policy = RetryPolicy(
            max_attempts=max_attempts, base_seconds=0.5, max_delay_seconds=300, chance=self._random.random
        )
        self.jobs: list[Job] = []
        self.call_times: list[float] = []
        self.openings = 0

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self._clock.now - self._began

    def send(self, name: str) -> None:
        """Enqueue a job."""
        job = Job(name)
        self.jobs.append(job)
        self._new.append(job)

    def send_at(self, seconds: float, name: str) -> None:
        """Enqueue a job later."""
        self._later(seconds - self.now, lambda: self.send(name))

    def run(self, until: float) -> None:
        """Live on up to a moment."""
        self._take()
        while self._coming and self._coming[0][0] <= self._began + until:
            moment, _, what = heapq.heappop(self._coming)
            self._clock.now = max(self._clock.now, moment)
            what()
            self._take()

    def outcomes(self, prefix: str = "") -> dict[str, int]:
        """How many jobs, whose names begin so, ended how."""
        found: dict[str, int] = {}
        for job in self.jobs:
            if job.name.startswith(prefix):
                found[job.outcome] = found.get(job.outcome, 0) + 1
        return found

    def most_calls_in_a_second(self, since: float, until: float) -> int:
        """Of the calls in that time."""
        times = [time for time in self.call_times if since <= time < until]
        most = first = 0
        for last, time in enumerate(times):
            while time - times[first] >= 1:
                first += 1
            most = max(most, last - first + 1)
        return most

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (self._clock.now + max(0.0, seconds), next(self._numbers), what))

    def _take(self) -> None:
        while self._clock.now >= self._closed_until:
            answer = self.flow.ask()
            if isinstance(answer, Wait):
                seconds = min(answer.seconds, ASK_AGAIN_SECONDS)
                self._closed_until = self._clock.now + seconds
                self._later(seconds, lambda: None)
                return
            lists = (self._new, self._again) if answer.is_probe else (self._again, self._new)
            taken = 0
            for jobs in lists:
                while jobs and taken < answer.jobs:
                    taken += 1
                    job = jobs.popleft()
                    self._hands.add(job.delivery)
                    self._call(job)
            if not taken:
                if answer.jobs:
                    self.flow.unused()
                return

    def _call(self, job: Job) -> None:
        job.calls += 1
        self.call_times.append(self.now)
        blame = self._fails(self.now, job.name)
        self._later(CALL_SECONDS, lambda: self._answered(job, blame))

    def _answered(self, job: Job, blame: Blame | None) -> None:
        job.attempts += 1
        if blame is None:
            self.flow.answered()
            self._end(job, "locked")
            return
        was_closed = self.flow.api.is_closed
        is_attempt = self.flow.failed(job.name, blame)
        self.openings += was_closed and self.flow.api.is_open
        if not is_attempt:
            job.attempts -= 1
            self._delay(job, self._policy.aside(None))
            return
        bound = min(300, 0.5 * 2 ** (job.attempts - 1))
        wait = self._random.uniform(0, bound)
        if self._policy.delay(job.attempts, None) is None:
            self._end(job, "exhausted")
        elif wait > IN_PLACE_SECONDS or self.flow.holds_back():
            self._delay(job, wait)
        else:
            self._later(wait, lambda: self._delay(job, 0) if self.flow.holds_back() else self._call(job))

    def _delay(self, job: Job, seconds: float) -> None:
        self._hands.drop(job.delivery)
        self._later(seconds, lambda: self._again.append(job))

    def _end(self, job: Job, outcome: str) -> None:
        self._hands.drop(job.delivery)
        job.outcome = outcome
