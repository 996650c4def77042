"""Time that passes when there is nothing left to do in it: a heap of what happens when.

Coroutines take part without an event loop: what they await is :func:`pass_time`, and whoever drives them schedules the
rest. Nothing here sleeps, and with one seed everything happens again in the same order.
"""

from __future__ import annotations

import heapq
from itertools import count
from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: The server's clock when a simulation begins, in milliseconds.
BEGAN_MS = 1_750_000_000_000


@coroutine
def pass_time(seconds: float) -> Generator[float, None, None]:
    """Wait, in a coroutine of a simulation."""
    yield seconds


class Timeline:
    """What happens when, in simulated seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._coming: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self) -> float:
        """The moment, as a monotonic clock tells it."""
        return self.now

    def server_ms(self) -> float:
        """The moment, as the Redis server tells it."""
        return BEGAN_MS + self.now * 1000

    def after(self, seconds: float, what: Callable[..., Any], *arguments: Any) -> None:
        """Something happens in so many seconds."""
        heapq.heappush(self._coming, (self.now + max(0.0, seconds), next(self._numbers), what, arguments))

    def at(self, moment: float, what: Callable[..., Any], *arguments: Any) -> None:
        """Something happens at a moment."""
        self.after(moment - self.now, what, *arguments)

    def run(self, until: float, *, is_over: Callable[[], bool] = lambda: False) -> None:
        """Live on up to a moment, or until it is over."""
        coming = self._coming
        while coming and coming[0][0] <= until and not is_over():
            self.now, _, what, arguments = heapq.heappop(coming)
            what(*arguments)
        if not is_over():
            self.now = max(self.now, until)
