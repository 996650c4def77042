"""Logs trouble with the API as ``worker.observe.outages`` logs trouble with Redis: its begin, a count, its end.

The first event of a trouble is logged as what it is. Further ones are lines at INFO, and once a minute one line tells
how long the trouble has lasted and how often each event happened. The end tells the same.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from worker.observe.outages import QUIET_SECONDS, REPEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable


class Trouble:
    """One kind of trouble of this process.

    Trouble that comes back within ``QUIET_SECONDS`` is the same one. Then its end is logged only after so many seconds
    without an event.

    Args:
        logger: writes the lines.
        lasts: the event of the line each minute.
        ends: the event of the last line.
        level: the level of the first line and of those each minute. The last line is a warning, so that an operator
            who is told of the beginning is told of the end.
        are_repeats_logged: log each further event at INFO.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        lasts: str,
        ends: str,
        level: int = logging.ERROR,
        are_repeats_logged: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._lasts = lasts
        self._ends = ends
        self._level = level
        self._are_repeats_logged = are_repeats_logged
        self._clock = clock
        #: True from the first event until the end is logged.
        self.is_on = False
        self._is_flapping = self._has_worked = False
        self._began_at = self._logged_at = self._happened_at = float("-inf")
        self._counts: Counter[str] = Counter()

    def happened(self, event: str, what: str, **fields: Any) -> None:
        """Record an event of the trouble.

        Args:
            event: its name in the log.
            what: what is counted of it.
            fields: the fields of its line, and of the line each minute.
        """
        now = self._clock()
        if self._has_worked and now - self._happened_at > QUIET_SECONDS:
            self.over()  # nobody has asked since
        is_new = not self.is_on and now - self._happened_at > QUIET_SECONDS
        if is_new:
            self._began_at = self._logged_at = now
            self._counts.clear()
        self._is_flapping = not is_new and (self._is_flapping or not self.is_on)
        self.is_on, self._has_worked, self._happened_at = True, False, now
        self._counts[what] += 1
        if is_new:
            self._logger.log(self._level, event, extra=fields)
        elif self._are_repeats_logged:
            self._logger.info(event, extra=fields)
        if now - self._logged_at >= REPEAT_SECONDS:
            self._logged_at = now
            self._logger.log(self._level, self._lasts, extra={**fields, **self._facts()})

    def over(self, **fields: Any) -> None:
        """Record that what failed works. ``fields`` are those of the last line."""
        self._has_worked = self.is_on and self._is_flapping and self._clock() - self._happened_at <= QUIET_SECONDS
        if not self.is_on or self._has_worked:
            return
        self.is_on = False
        self._logger.warning(self._ends, extra={**fields, **self._facts()})

    def _facts(self) -> dict[str, Any]:
        return {"seconds": round(self._clock() - self._began_at, 1), "counts": dict(self._counts)}
