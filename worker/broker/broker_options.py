"""The settings that the moves need, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.broker.move_limits import SUSPICIOUS_CRASHES
from worker.broker.stream_bounds import StreamBounds

if TYPE_CHECKING:
    from worker.broker.keys import Keys

_LOW_RATE = 4
_LOW_RATE_STRETCH = 1.06


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """The settings that the moves need. Times are in milliseconds, the rate in calls a second of the whole fleet.

    Attributes:
        longest_lease_ms: the longest lease in the fleet. Workers may have leases of different lengths; how long the
            fleet must be silent to mean an outage, and how long all have to come back, depends on the longest.
    """

    fleet: Keys
    rate: float | None
    results: str
    results_maxlen: int
    dead: str
    dead_maxlen: int
    lease_ms: int
    dedup_ttl_ms: int
    max_deliveries: int
    max_age_ms: int = 0
    longest_lease_ms: int = 0
    bounds: StreamBounds = field(default_factory=StreamBounds)

    @property
    def suspicious_crashes(self) -> int:
        """Return the crashes from which on a job runs alone, so that no job is poisoned by a neighbour's crashes."""
        return max(1, min(SUSPICIOUS_CRASHES, self.max_deliveries - 1))

    @property
    def interval_us(self) -> int:
        """Return the microseconds between two calls of the fleet; 0 without a rate limit.

        Below four calls a second, a single extra call in a second would exceed 1.25 times the rate. There the interval
        is a little longer, so that a call that starts late does not bring that about.
        """
        if self.rate is None:
            return 0
        return math.ceil(1_000_000 / self.rate * (_LOW_RATE_STRETCH if self.rate < _LOW_RATE else 1))

    @property
    def silence_ms(self) -> int:
        """Return the silence of the whole fleet that means that the server was away: maintenance is far more frequent.

        Leases are renewed when a third of their time is over, so a silence shorter than two thirds has ended none.
        """
        return min(3_000, max(self.lease_ms, self.longest_lease_ms) * 2 // 3)

    @property
    def grace_ms(self) -> int:
        """Return how long the workers have to renew their leases after the server came back."""
        return min(max(self.lease_ms, self.longest_lease_ms), 3_000)
