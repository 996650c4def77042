"""Bounds the share of a worker that retries may have beside new jobs. A retry is a job whose call failed before.

Retries earn their share. While they mostly succeed, the earlier failures were the API's, and retries go first. While
they mostly fail, they are bad jobs, and a tenth of the slots is enough to finish them. So jobs that can never succeed
do not hold up the others, and after a short outage no retry waits behind a backlog.
"""

from __future__ import annotations

_MIN_SHARE = 0.1
#: The same while there are no new jobs.
_IDLE_SHARE = 0.5
#: The share of retries that is assumed to succeed at the start, and how much one result changes that share.
_INITIAL_SUCCESS = 0.2
_WEIGHT = 0.1


class RetryShare:
    """The share of retries, by their results."""

    def __init__(self) -> None:
        self._success = _INITIAL_SUCCESS
        self._credit = 0.0

    @property
    def share(self) -> float:
        """The share of the slots, and of each take."""
        return max(_MIN_SHARE, self._success)

    def ended(self, *, well: bool) -> None:
        """Record that a retry was answered (``well``) or failed again."""
        self._success += _WEIGHT * (well - self._success)

    def first(self, wanted: int) -> int:
        """Return how many of the wanted jobs may be retries that go before new jobs."""
        return round(min(wanted, self._credit + self.share * wanted))

    def took(self, jobs: int, retries: int) -> None:
        """Record a take and its retries: a share that was not used is kept for the next take."""
        self._credit = max(-1.0, min(1.0, self._credit + self.share * jobs - retries))

    def max_first(self, limit: int, in_flight: int) -> int:
        """Return how many more retries may be in flight while new jobs wait."""
        return max(0, max(1, round(self.share * limit)) - in_flight)

    def max_total(self, limit: int, in_flight: int) -> int:
        """Return how many more retries may be in flight while no new job waits; the next new one still finds a slot."""
        return max(0, max(1, round(max(_IDLE_SHARE, self.share) * limit)) - in_flight)
