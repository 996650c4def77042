"""The Redis server's clock, as far as this process knows it: pods whose own clocks differ agree on it."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class ServerClock:
    """The server's time, carried on by the monotonic clock between two answers that contain it.

    Until the first answer it is this machine's own time.
    """

    def __init__(self) -> None:
        #: How far the clock of ages, which stands still while operators pause the fleet, is behind this one.
        self.ages_behind_ms = 0
        self._synced_at = time.monotonic()
        self._ahead_ms = time.time() * 1000 - self._synced_at * 1000

    def sync(self, server_ms: int) -> None:
        """Set the clock to a time that the server sent just now."""
        self._synced_at = time.monotonic()
        self._ahead_ms = server_ms - self._synced_at * 1000

    @property
    def seconds_since_sync(self) -> float:
        """How long ago the server last sent its time."""
        return time.monotonic() - self._synced_at

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        return self.at(self.now_ms())

    def now_ms(self) -> float:
        """Return the time in milliseconds since the epoch, as the server counts."""
        return time.monotonic() * 1000 + self._ahead_ms

    @staticmethod
    def at(server_ms: float) -> datetime:
        """Return a server time in milliseconds as an aware time in UTC."""
        return datetime.fromtimestamp(server_ms / 1000, UTC)
