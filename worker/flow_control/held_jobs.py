"""Notices that jobs on hold lie at the old end of the queue, so that the jobs behind them need not wait for them.

A runaway rule sends jobs faster than workers set them aside. While most jobs of the last take from the old
end are on hold, every second take is from the new end, where the jobs lie that others have sent since.
"""

from __future__ import annotations

#: A take brings so many jobs at most meanwhile: while it is read, and set aside, no other job goes on.
JOBS_AT_ONCE = 50


class HeldJobs:
    """What the takes of this process met at the old end of the queue."""

    def __init__(self) -> None:
        self._taken = self._held = 0
        self._was_newest = False

    @property
    def are_in_the_way(self) -> bool:
        """True if most jobs of the last take from the old end are on hold."""
        return self._held * 2 > self._taken

    @property
    def is_newest_due(self) -> bool:
        """True if the next new jobs are to come from the new end."""
        return self.are_in_the_way and not self._was_newest

    def took(self, jobs: int, *, is_newest: bool) -> None:
        """Note how many jobs a take brought, and from which end the new ones were."""
        self._was_newest = is_newest
        if not is_newest:
            self._taken, self._held = jobs, 0

    def set_aside(self, *, is_newest: bool) -> None:
        """Note that a job is set aside; ``is_newest``: it came from the new end."""
        self._held += not is_newest
