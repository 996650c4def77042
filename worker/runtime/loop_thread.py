"""An asyncio loop in a thread of its own, and the thread-safe way to call functions on it.

The loop is uvloop's: it takes about 7 % less CPU a job than asyncio's own.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import uvloop

from worker.observe import uncaught

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class LoopThread:
    """Runs an asyncio loop in a daemon thread, from :meth:`start` until something on the loop calls :meth:`stop`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """True from the start until the loop has ended."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the thread; return when ``begin`` has run on the loop and the loop goes on.

        Raises:
            BaseException: what ``begin`` raised; then the loop has ended.
        """
        ready: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(begin, ready), name="asyncio", daemon=True)
        self._thread.start()
        error = ready.get()
        if error is not None:
            raise error

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the loop, soon. From any thread; without effect before the start and after the end."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *arguments)

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, so many seconds at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    def stop(self) -> None:
        """End the loop. On the loop's own thread only."""
        asyncio.get_running_loop().stop()

    def _run(self, begin: Callable[[], Coroutine[Any, Any, None]], ready: SimpleQueue[BaseException | None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._loop = runner.get_loop()
            asyncio.set_event_loop(self._loop)
            self._loop.set_exception_handler(uncaught.in_a_loop)
            try:
                runner.run(begin())
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for the start
                ready.put(error)
                return
            self._loop.call_soon(ready.put, None)
            self._loop.run_forever()
