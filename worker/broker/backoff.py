"""When a process may connect to Redis: at once while connections hold, else one attempt at a time after growing waits.

All connections of a process share one backoff. A server that is at its `maxclients`, that restarts, or whose proxy has
no server to lead to, is asked by each process once in a while, however many parts of it wait for a connection.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: The wait after the first failure, and the longest one, in seconds. Work goes on within 10 s after Redis is back: the
#: longest wait, and an attempt that hangs until it is given up (5 s), fit in there.
FIRST_SECONDS = 0.1
MAX_SECONDS = 2.0
#: A wait is this share of itself shorter at most, by chance, so that the processes of a fleet do not connect together.
_JITTER = 0.5
#: While one attempt is under way the others wait for what becomes of it, for so long at most.
_ATTEMPT_SECONDS = 5.0
#: After so many seconds without a failure the waits begin small again.
_FORGET_SECONDS = 15.0


class ConnectBackoff:
    """Shared by the threads of a process.

    Args:
        max_seconds: the longest wait.
        chance: gives numbers from 0 to 1.
        now: gives the seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        max_seconds: float = MAX_SECONDS,
        chance: Callable[[], float] = random.random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_seconds = max_seconds
        self._chance = chance
        self._now = now
        self._lock = threading.Lock()
        self._failures = 0
        self._failed_at = self._next_at = float("-inf")
        #: Whether connections fail at present. They do until one of them has brought an answer.
        self.is_failing = False

    def seconds_to_wait(self) -> float:
        """How long to wait before asking again; 0: connect now, and tell what becomes of it."""
        with self._lock:
            if not self.is_failing:
                return 0.0
            now = self._now()
            if now < self._next_at:
                return self._next_at - now
            self._next_at = now + _ATTEMPT_SECONDS
            return 0.0

    def failed(self, began_at: float) -> None:
        """A connection could not be made, was lost, or led to a server that is of no use.

        Args:
            began_at: the monotonic time when connecting began. Of connections that are lost together one counts.
        """
        with self._lock:
            if began_at <= self._failed_at:
                return
            now = self._now()
            if now - self._failed_at > _FORGET_SECONDS:
                self._failures = 0
            delay = min(FIRST_SECONDS * 2**self._failures, self._max_seconds)
            self._failures = min(self._failures + 1, 16)
            self._failed_at = now
            self._next_at = now + delay * (1 - _JITTER * self._chance())
            self.is_failing = True

    def worked(self) -> None:
        """A connection brought an answer: all that wait may connect."""
        if self.is_failing:
            with self._lock:
                self.is_failing = False
