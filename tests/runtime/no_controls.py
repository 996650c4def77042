"""A fleet of which no operator asked anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.job import Job


class NoControls:
    """As :class:`worker.runtime.control_watch.ControlWatch`, before an operator's first action."""

    def of(self, _job: Job) -> None:
        return None
