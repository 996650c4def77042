"""Tasks on the loop that nobody waits for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Background:
    """Starts tasks, and keeps them alive until they end: the loop itself keeps no reference to a task."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task."""
        return self.keep(asyncio.create_task(work))

    def keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Keep a task that was started elsewhere until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
