"""Keeps track of the calls under way in this process, and finds those that are stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.run import Run

#: A call is stuck if it takes longer than this, and so many times as long as answered calls usually do. A stuck call
#: uses no place of a slow start.
_STUCK_SECONDS = 0.5
_STUCK_TIMES = 3.0
#: How much one answered call changes the usual time of a call.
_USUAL_WEIGHT = 0.1


class CallsUnderWay:
    """The calls of this process that have begun and not ended, and how long calls take.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        #: The last failed call failed late, so failures are slow just now.
        self.failed_late = False
        self._clock = clock
        self._usual_seconds = 0.0
        self._calling: dict[int, tuple[Run, float]] = {}

    def begins(self, run: Run) -> None:
        """Record that a call begins."""
        self._calling[id(run)] = run, self._clock()

    def ended(self, run: Run, *, well: bool | None) -> float:
        """Record the end of a call, with ``well`` None if its result says nothing; returns when it began."""
        now = self._clock()
        _, began = self._calling.pop(id(run), (run, now))
        if well:
            self._usual_seconds += _USUAL_WEIGHT * (now - began - self._usual_seconds)
        elif well is False:
            self.failed_late = now - began > _STUCK_SECONDS
        return began

    def ended_behind(self, run: Run) -> int:
        """Record the end of a call that was refused for load; returns how many calls under way began before it."""
        older = 0
        for other, _ in self._calling.values():
            if other is run:
                break
            older += not other.is_over
        self.ended(run, well=None)
        return older

    def stuck(self, now: float) -> int:
        """Return how many calls take far longer than answered calls usually do."""
        since = now - max(_STUCK_SECONDS, _STUCK_TIMES * self._usual_seconds)
        stuck = 0
        for key, (run, began) in list(self._calling.items()):  # in the order in which they began
            if began > since:
                break
            if run.is_over:  # the call was interrupted
                del self._calling[key]
            else:
                stuck += 1
        return stuck

    def new_by_end(self) -> tuple[int, int]:
        """Return how many calls are of new jobs from the newest end of the queue, and how many from the oldest."""
        new = [run.is_newest for run, _ in self._calling.values() if not run.is_retry]
        newest = sum(new)
        return newest, len(new) - newest
