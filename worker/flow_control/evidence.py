"""Decides whether failed calls mean that the API is down, or only that single jobs are bad.

A job whose call fails may itself be at fault. So a run of failures counts only as far as it is *surprising*. Only fresh
jobs count, which were never tried before, each once; they are weighed by how often fresh jobs fail while the API is up.
If one in a hundred fails, three in a row hardly happen; if every second one is bad, even twenty do. One answered call
ends a run, because an API that is down answers no call. This is Wald's sequential test
(https://en.wikipedia.org/wiki/Sequential_probability_ratio_test) of "down" against "up, with some bad jobs".
"""

from __future__ import annotations

import math

#: The share of bad jobs is measured over about this many fresh calls.
_MEMORY = 200.0
#: The assumption at the start: one in a hundred jobs is bad, with the weight of ten calls.
_PRIOR_WEIGHT = 10.0
_PRIOR_SHARE = 0.01
#: The share counts as this at most, or no run would ever be long enough.
_MAX_SHARE = 0.9
#: A run is evidence if bad jobs alone would bring it about once in so many runs; fewer are enough while the API is in
#: doubt.
_ODDS = 1e6
_ODDS_IN_DOUBT = 1e4
#: The least number of different fresh jobs in a run.
_JOBS = 3


class Evidence:
    """Counts the failed calls since the last answered one.

    Args:
        needed: the failures that the caller will ask for; see :meth:`is_enough`.

    ``jobs`` are the ids of the fresh jobs in the run, but no more of them than are weighed: where no breaker ends a
    run, all jobs of a backlog may fail in it.
    """

    def __init__(self, needed: int = 0) -> None:
        self.failures = 0
        self.jobs: set[str] = set()
        self._max_jobs = max(needed, _MEMORY)
        self._answered_began = -math.inf
        self._outright = 0
        self._tried = 0.0
        self._bad = 0.0

    @property
    def bad_share(self) -> float:
        """The share of fresh jobs whose call fails while the API is up."""
        return (self._bad + _PRIOR_WEIGHT * _PRIOR_SHARE) / (self._tried + _PRIOR_WEIGHT)

    @property
    def is_suspicious(self) -> bool:
        """True if enough jobs failed in a row that the next ones should come from the other end of the queue."""
        return len(self.jobs) + self._outright >= _JOBS

    def failed(self, job: str, began: float, *, is_fresh: bool, is_outright: bool = False) -> None:
        """Record a failed call.

        Args:
            job: the job's id.
            began: the monotonic time when the call began. A slow failure, which comes after the answer to a later call,
                is no part of a run.
            is_fresh: the job was never tried before.
            is_outright: there was no connection, which can be no job's fault.
        """
        if began < self._answered_began:
            if is_fresh and not is_outright:
                self._count(1, 1)
            return
        self.failures += 1
        if is_outright:
            self._outright += 1
        elif is_fresh and len(self.jobs) < self._max_jobs:
            self.jobs.add(job)

    def answered(self, began: float) -> None:
        """Record the answer to a call that began then: the run is over, and the jobs that failed in it were bad."""
        self._answered_began = max(self._answered_began, began)
        self._count(1, 0)
        if self.failures:
            self._count(len(self.jobs), len(self.jobs))
            self.forget()

    def forget(self) -> None:
        """Drop the run, because it was an outage and its jobs may be good."""
        self.failures = self._outright = 0
        self.jobs.clear()

    def is_enough(self, failures: int, *, is_in_doubt: bool = False) -> bool:
        """Return True if the run has so many failures, and more than bad jobs would explain."""
        if len(self.jobs) + self._outright < max(failures, _JOBS):
            return False
        surprise = -math.log(min(self.bad_share, _MAX_SHARE)) * len(self.jobs)
        surprise -= math.log(_PRIOR_SHARE) * self._outright
        return surprise >= math.log(_ODDS_IN_DOUBT if is_in_doubt else _ODDS)

    def _count(self, tried: float, bad: float) -> None:
        kept = max(0.0, 1 - tried / _MEMORY)
        self._tried = self._tried * kept + tried
        self._bad = self._bad * kept + bad
