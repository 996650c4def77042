"""Lets the asyncio loop wait for a function that blocks, perhaps without end."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class BlockingCall(Generic[T]):
    """Calls a function in a daemon thread of its own.

    The threads of the loop's executor would not do: a server or a disk that is silent holds all of them in the end, the
    API's name is looked up in them, and the end of the process waits for them.

    One call runs at a time, or calls that hang would pile up: who asks meanwhile gets its answer too.

    Args:
        function: it may be called from any thread.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._running: Future[T] | None = None

    async def result(self) -> T:
        """Return what the function returns, or raise what it raises. For one loop."""
        running = self._running
        if running is None or running.done():
            running = Future()
            running.set_running_or_notify_cancel()  # from now on nobody who stops waiting cancels it for the others
            threading.Thread(target=_run, args=(self._function, running), name="blocking-call", daemon=True).start()
            self._running = running
        return await asyncio.wrap_future(running)


def _run(function: Callable[[], T], running: Future[T]) -> None:
    try:
        running.set_result(function())
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        running.set_exception(error)
