"""What runs on the asyncio loop beside the jobs, from its start to its stop."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod


class LoopService(ABC):
    """Has one task."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and return when the task has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @abstractmethod
    async def _run(self) -> None:
        """Do what there is to do, again and again; cancelled at the end."""
