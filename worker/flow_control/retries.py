"""How much of a worker the retries may have: jobs whose call failed before, beside work that is new.

Retries earn their share. While they mostly succeed, the trouble was the API's, and they go first; while they mostly
fail, they are bad jobs, and a tenth of the slots is enough to bring them to their end. So jobs that can never be done
do not hold up those that can, and a passing trouble makes nobody wait behind a backlog.
"""

from __future__ import annotations

_LEAST_SHARE = 0.1
#: The same while nothing else is to do.
_IDLE_SHARE = 0.5
#: What is believed of retries before any was tried, and how much one result changes it.
_FIRST_BELIEF = 0.2
_WEIGHT = 0.1


class RetryShare:
    """The share of retries, by how they fare."""

    def __init__(self) -> None:
        self._success = _FIRST_BELIEF
        self._credit = 0.0

    @property
    def share(self) -> float:
        """Of the slots, and of each take."""
        return max(_LEAST_SHARE, self._success)

    def ended(self, *, well: bool) -> None:
        """A retry was answered, or failed again."""
        self._success += _WEIGHT * (well - self._success)

    def first(self, wanted: int) -> int:
        """How many of so many jobs may be retries that go before new ones."""
        return round(min(wanted, self._credit + self.share * wanted))

    def took(self, jobs: int, retries: int) -> None:
        """So many jobs were taken, so many of them retries: what was not used is kept for the next take."""
        self._credit = max(-1.0, min(1.0, self._credit + self.share * jobs - retries))

    def max_first(self, limit: int, in_flight: int) -> int:
        """How many more retries may be in flight because of which new jobs wait."""
        return max(0, max(1, round(self.share * limit)) - in_flight)

    def max_total(self, limit: int, in_flight: int) -> int:
        """How many more retries may be in flight while no new job waits: the next one that comes finds a free slot."""
        return max(0, max(1, round(max(_IDLE_SHARE, self.share) * limit)) - in_flight)
