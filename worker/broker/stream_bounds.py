"""How much of Redis the results and the dead letters may take."""

from __future__ import annotations

from dataclasses import dataclass

#: The defaults of RESULTS_MAX_BYTES and DEAD_MAX_BYTES.
RESULTS_MAX_BYTES = 128 * 1024 * 1024
DEAD_MAX_BYTES = 64 * 1024 * 1024
#: Of a server with a `maxmemory`: the rest is for jobs, and for what is on its way to consumers.
_RESULTS_SHARE = 1 / 2
_DEAD_SHARE = 1 / 4
#: Below this a share is not taken for one: a server of a few megabytes has no room for what clients need.
_LEAST_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class StreamBounds:
    """The bounds in bytes: as configured, and no more than a share of what the server has.

    Both streams fill up and stay full. Where together they are larger than the server, it would be full from then on
    and refuse every new job, with an empty queue.

    Attributes:
        results: RESULTS_MAX_BYTES.
        dead: DEAD_MAX_BYTES.
        maxmemory: the memory that the server may use, as far as known; 0: no limit.
    """

    results: int = RESULTS_MAX_BYTES
    dead: int = DEAD_MAX_BYTES
    maxmemory: int = 0

    @property
    def results_bytes(self) -> int:
        """What the results may take now."""
        return self._within(self.results, _RESULTS_SHARE)

    @property
    def dead_bytes(self) -> int:
        """What the dead letters may take now."""
        return self._within(self.dead, _DEAD_SHARE)

    @property
    def are_lowered(self) -> bool:
        """Whether the server has no room for what is configured."""
        return self.results_bytes < self.results or self.dead_bytes < self.dead

    def _within(self, configured: int, share: float) -> int:
        if not self.maxmemory:
            return configured
        return min(configured, max(_LEAST_BYTES, int(self.maxmemory * share)))
