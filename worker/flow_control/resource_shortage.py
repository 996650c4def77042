"""Takes no jobs for a moment after this worker lacked the resources for a call, such as a file descriptor.

Meanwhile the jobs in flight free theirs. Such a failure says nothing about the API or the job, so it costs no attempt.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from worker.observe.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.outcome import Problem

logger = logging.getLogger(__name__)

#: How long a worker that lacks resources for a call takes no jobs, in seconds.
_HOLD_SECONDS = 1.0


class ResourceShortage:
    """Remembers whether this worker lacked resources just now. ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        #: The monotonic time until which no job is taken.
        self.until = 0.0
        self._clock = clock
        self._trouble = Trouble(
            logger, lasts="still_no_resources", ends="resources_available", are_repeats_logged=False, clock=clock
        )

    def note(self, problem: Problem) -> None:
        """Record that no call could be made."""
        self.until = self._clock() + _HOLD_SECONDS
        self._trouble.happened("no_resources", "calls_not_made", problem=problem.detail)

    def answered(self) -> None:
        """Record that a call was made and answered."""
        if self._trouble.is_on and self._clock() >= self.until:
            self._trouble.over()
