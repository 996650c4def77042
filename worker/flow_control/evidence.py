"""What failed calls say about the API, and what about single jobs.

A job whose call fails may be at fault itself. So a run of failures counts only as far as it is *surprising*: by fresh
jobs (never tried before, so nobody chose them for having failed), each counted once, and weighed by how often fresh
jobs fail while the API is well. Where one in a hundred fails, three in a row hardly happen; where every second one is
bad, twenty do. One answered call ends a run: an API that is down answers nobody. This is Wald's sequential test
(https://en.wikipedia.org/wiki/Sequential_probability_ratio_test) of "down" against "well, but for its bad jobs".
"""

from __future__ import annotations

import math

#: How many fresh calls the share of bad jobs is remembered over, about.
_MEMORY = 200.0
#: Before anything is known: one in a hundred is bad, said with the weight of ten calls.
_PRIOR_WEIGHT = 10.0
_PRIOR_SHARE = 0.01
#: The share is taken for no more than this, or no run would ever be long enough.
_MAX_SHARE = 0.9
#: A run that happens by chance once in so many is evidence enough; while the API is in doubt already, in so many.
_ODDS = 1e6
_ODDS_IN_DOUBT = 1e4
#: Different fresh jobs in a run at least.
_JOBS = 3


class Evidence:
    """Counts the calls that failed since one was answered."""

    def __init__(self) -> None:
        self.failures = 0
        self.jobs: set[str] = set()
        self._answered_began = -math.inf
        self._outright = 0
        self._tried = 0.0
        self._bad = 0.0

    @property
    def bad_share(self) -> float:
        """The share of fresh jobs whose call fails while the API is well."""
        return (self._bad + _PRIOR_WEIGHT * _PRIOR_SHARE) / (self._tried + _PRIOR_WEIGHT)

    @property
    def is_suspicious(self) -> bool:
        """Whether enough failed in a row that the next ones should be drawn from elsewhere."""
        return len(self.jobs) + self._outright >= _JOBS

    def failed(self, job: str, began: float, *, is_fresh: bool, is_outright: bool = False) -> None:
        """A call failed that began then; ``is_outright``: there was no connection, which no job can be at fault for.

        Slow failures come in after the answers to later calls, and would look like a run of their own.
        """
        if began < self._answered_began:
            if is_fresh and not is_outright:
                self._remember(1, 1)
            return
        self.failures += 1
        if is_outright:
            self._outright += 1
        elif is_fresh:
            self.jobs.add(job)

    def answered(self, began: float) -> None:
        """A call was answered that began then: the run is over, and those that failed in it were bad."""
        self._answered_began = max(self._answered_began, began)
        self._remember(1, 0)
        if self.failures:
            self._remember(len(self.jobs), len(self.jobs))
            self.forget()

    def forget(self) -> None:
        """The run was an outage: it tells nothing of the jobs."""
        self.failures = self._outright = 0
        self.jobs.clear()

    def is_enough(self, failures: int, *, is_in_doubt: bool = False) -> bool:
        """Whether so many failures in a row, of different fresh jobs, are more than bad jobs would explain."""
        if len(self.jobs) + self._outright < max(failures, _JOBS):
            return False
        surprise = -math.log(min(self.bad_share, _MAX_SHARE)) * len(self.jobs)
        surprise -= math.log(_PRIOR_SHARE) * self._outright
        return surprise >= math.log(_ODDS_IN_DOUBT if is_in_doubt else _ODDS)

    def _remember(self, tried: float, bad: float) -> None:
        kept = max(0.0, 1 - tried / _MEMORY)
        self._tried = self._tried * kept + tried
        self._bad = self._bad * kept + bad
