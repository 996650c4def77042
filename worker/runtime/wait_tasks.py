"""The blocking calls that wait for messages: one for each queue, each in an asyncio task of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from worker.broker.follow_up import FollowUp


class WaitTasks:
    """Starts the waits, ends them and closes their connections. ``on_end`` is called when one has ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[bytes | None]] = {}
        #: Tasks that still close the connection of a wait.
        self._closing: set[asyncio.Task[Any]] = set()

    def __contains__(self, queue: str) -> bool:
        return queue in self._tasks

    def start(self, queue: str, wait: Coroutine[Any, Any, bytes | None]) -> asyncio.Task[bytes | None]:
        """Wait for a message of a queue."""
        task = self._tasks[queue] = asyncio.create_task(wait)
        task.add_done_callback(lambda _: self._on_end())
        return task

    def start_behind_a_take(self, queue: str, follow_up: FollowUp) -> None:
        """Go on with a wait that was sent behind a take."""
        task = self.start(queue, follow_up.wait())
        task.add_done_callback(lambda _: self.give_up(follow_up))

    def give_up(self, follow_up: FollowUp) -> None:
        """Close the connection of a wait without a task, also if the task was cancelled before it began."""
        if follow_up.is_waiting:
            self._close(asyncio.create_task(follow_up.give_up()))

    def stop(self, queue: str) -> None:
        """End the wait for a queue, if there is one."""
        task = self._tasks.pop(queue, None)
        if task is None:
            return
        if task.cancel():
            self._close(task)
        elif not task.cancelled():
            task.exception()  # asyncio logs an exception that is never retrieved

    def stop_all(self) -> None:
        """End all waits."""
        for queue in list(self._tasks):
            self.stop(queue)

    def take_ended(self) -> list[tuple[str, asyncio.Task[bytes | None]]]:
        """Return the waits that have ended, by their queues, and forget them."""
        ended = [(queue, task) for queue, task in self._tasks.items() if task.done()]
        for queue, _ in ended:
            del self._tasks[queue]
        return ended

    async def closed(self) -> None:
        """Return when the connections of all stopped waits are closed."""
        while self._closing:
            await asyncio.wait(self._closing)

    def _close(self, task: asyncio.Task[Any]) -> None:
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
