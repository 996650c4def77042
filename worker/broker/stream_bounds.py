"""Bounds the memory of Redis that the results and the dead letters may take."""

from __future__ import annotations

from dataclasses import dataclass

#: The defaults of RESULTS_MAX_BYTES and DEAD_MAX_BYTES.
RESULTS_MAX_BYTES = 128 * 1024 * 1024
DEAD_MAX_BYTES = 64 * 1024 * 1024
#: Shares of the server's ``maxmemory``: the rest is for jobs, and for the buffers of consumers.
_RESULTS_SHARE = 1 / 2
_DEAD_SHARE = 1 / 4
#: The least bound by share: below it, single events would not fit.
_LEAST_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class StreamBounds:
    """The bounds in bytes: as configured, but no more than a share of the server's memory.

    Both streams fill up and stay full. If they could outgrow the server together, it would stay full and refuse every
    new job, even with an empty queue.

    Attributes:
        results: RESULTS_MAX_BYTES.
        dead: DEAD_MAX_BYTES.
        maxmemory: the memory that the server may use; 0: no limit, or unknown.
    """

    results: int = RESULTS_MAX_BYTES
    dead: int = DEAD_MAX_BYTES
    maxmemory: int = 0

    @property
    def results_bytes(self) -> int:
        """Return the bound of the results."""
        return self._within(self.results, _RESULTS_SHARE)

    @property
    def dead_bytes(self) -> int:
        """Return the bound of the dead letters."""
        return self._within(self.dead, _DEAD_SHARE)

    @property
    def are_lowered(self) -> bool:
        """True if the server has no room for what is configured."""
        return self.results_bytes < self.results or self.dead_bytes < self.dead

    def _within(self, configured: int, share: float) -> int:
        if not self.maxmemory:
            return configured
        return min(configured, max(_LEAST_BYTES, int(self.maxmemory * share)))
