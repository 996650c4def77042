"""Keeps what jobs were taken with and did not use, permits and probes, until the next take gives it back to Redis.

A permit lets one call start in its second, so only young ones are given back: the permits of a second ago could let the
calls of one second start in another.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from worker.broker.move_limits import UNUSED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.records import Delivery, TakeRequest


class Permits:
    """The permits and the probe of jobs that made no call.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._unused: deque[float] = deque()
        self._is_probe_unused = False

    def give_back(self, delivery: Delivery) -> None:
        """Give back what a job was taken with that made no call."""
        self._unused.append(delivery.taken_at)
        self._is_probe_unused |= delivery.is_probe

    def unused(self, *, is_probe: bool) -> int:
        """Return how many the next take gives back; ``is_probe``: it is one for a probe, and may use an old probe."""
        while self._unused and self._clock() - self._unused[0] > UNUSED_SECONDS:
            self._unused.popleft()
        return len(self._unused) or int(is_probe and self._is_probe_unused)

    def given_back(self, request: TakeRequest) -> None:
        """Record that a take gave back what it carried."""
        for _ in range(min(request.unused, len(self._unused))):
            self._unused.popleft()
        if request.is_probe:
            self._is_probe_unused = False
