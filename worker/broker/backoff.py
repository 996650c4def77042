"""Decides when a process may connect to Redis: at once while connections hold, else with exponential backoff.

All connections of a process share one backoff, and one of them tries at a time. So a server that restarts, that is at
its ``maxclients``, or whose proxy has no backend, gets one attempt per process and wait, however many parts of the
process need a connection.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: The wait after the first failure, and the longest one, in seconds. Work must resume within 10 s after Redis is back;
#: the longest wait plus one attempt that hangs until its timeout (5 s) fit in there.
FIRST_SECONDS = 0.1
MAX_SECONDS = 2.0
#: Jitter shortens a wait by up to this share, so that the processes of a fleet do not connect together.
_JITTER = 0.5
#: The others wait this long at most for the result of the attempt under way.
_ATTEMPT_SECONDS = 5.0
#: After this time without a failure the waits start from FIRST_SECONDS again.
_FORGET_SECONDS = 15.0


class ConnectBackoff:
    """The connection backoff of a process; thread-safe.

    Args:
        max_seconds: the longest wait.
        rng: returns random numbers from 0 to 1, for the jitter.
        now: returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        max_seconds: float = MAX_SECONDS,
        rng: Callable[[], float] = random.random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_seconds = max_seconds
        self._rng = rng
        self._now = now
        self._lock = threading.Lock()
        self._failures = 0
        self._failed_at = self._next_at = float("-inf")
        #: True from a failure until a connection that was made after it brings an answer.
        self.is_failing = False

    def seconds_to_wait(self) -> float:
        """Return the wait before the next question; 0: connect now, and report with `failed` or `worked`."""
        with self._lock:
            if not self.is_failing:
                return 0.0
            now = self._now()
            if now < self._next_at:
                return self._next_at - now
            self._next_at = now + _ATTEMPT_SECONDS
            return 0.0

    def failed(self, began_at: float) -> None:
        """Record that a connection could not be made, was lost, or led to an unusable server.

        Args:
            began_at: the monotonic time when connecting began. Connections that are lost together count as one failure.
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
            self._next_at = now + delay * (1 - _JITTER * self._rng())
            self.is_failing = True

    def worked(self, began_at: float) -> None:
        """Record that a connection brought an answer: everything that waits may connect.

        Args:
            began_at: the monotonic time when connecting began. An answer on a connection that is older than the last
                failure does not count: a server at its ``maxclients`` serves those and refuses new ones.
        """
        if self.is_failing:
            with self._lock:
                self.is_failing = began_at <= self._failed_at
