"""Takes no jobs for a moment after this worker lacked the resources for a call, such as a file descriptor.

Meanwhile the jobs in flight free theirs. Such a failure says nothing about the API or the job, so it costs no attempt.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.outcome import Problem

logger = logging.getLogger(__name__)

#: How long a worker that lacks resources for a call takes no jobs, and how often it logs that at most, in seconds.
_HOLD_SECONDS = 1.0
_LOG_SECONDS = 60.0


class ResourceShortage:
    """Remembers whether this worker lacked resources just now. ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        #: The monotonic time until which no job is taken.
        self.until = 0.0
        self._clock = clock
        self._logged_at = float("-inf")

    def note(self, problem: Problem) -> None:
        """Record that no call could be made."""
        now = self._clock()
        self.until = now + _HOLD_SECONDS
        if now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            logger.error("no_resources", extra={"problem": problem.detail})
