"""Bounds the share of a core that a thread may use, so that a flood of requests leaves the rest to the jobs."""

from __future__ import annotations


class CpuShare:
    """A budget of CPU time, a token bucket: it fills with the time that passes, and work empties it.

    Args:
        share: the share of a core that the thread may use for long, for example 0.25.
        burst_seconds: the CPU time that it may use at once after it was idle.
        now: the present monotonic time in seconds.
    """

    def __init__(self, share: float, *, burst_seconds: float, now: float) -> None:
        self._share = share
        self._burst_seconds = burst_seconds
        self._left_seconds = burst_seconds
        self._filled_at = now

    def spend(self, cpu_seconds: float, *, now: float) -> float:
        """Note CPU time that was used until ``now``; return the seconds that the thread must sleep for it."""
        passed = now - self._filled_at
        self._filled_at = now
        self._left_seconds = min(self._burst_seconds, self._left_seconds + passed * self._share) - cpu_seconds
        return max(0.0, -self._left_seconds / self._share)
