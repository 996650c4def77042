"""A small HTTP server for a few pages, built so that no client that reaches its port can harm the worker.

It has a thread and a selector of its own, so that the asyncio loop never waits for a client. A hostile client can use
up only bounded resources: connections, bytes of a request, seconds for each, and a share of one core. If there are more
connections than it keeps, it closes the one that has been silent longest, so that other clients still get answers while
one opens thousands.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from worker.observe.cpu_share import CpuShare
from worker.observe.listening import close_all
from worker.observe.page_request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.observe.page_request import Page

logger = logging.getLogger(__name__)

#: Connections open at once: far more than an orchestrator and a few scrapers need, few beside what the calls need.
MAX_CONNECTIONS = 32
#: Connections accepted at once, before the open ones get their turn.
_ACCEPTS_AT_ONCE = 32
#: Seconds for the thread to end when the server is stopped.
_STOP_SECONDS = 5.0
#: The share of a core that a flood of requests may take from the jobs, after so many seconds of work at once. That time
#: is enough for the first thousands of connections of a flood; then other clients get answers again.
_SHARE = 1 / 6
_BURST_SECONDS = 0.5
_REST_AFTER_ERROR_SECONDS = 0.1
#: Wake-ups that are read at once.
_WAKE_UPS = 16 * 1024
#: Refused requests are counted, and logged once in so many seconds.
_LOG_SECONDS = 60.0


class PageServer:
    """Serves pages in a thread of its own.

    Args:
        listening: the listening sockets; the server closes them when it stops.
        paths: the known paths; all others get 404.
        ask: called in the server's thread with each request for one of them. It answers at once, or later in the same
            thread (:meth:`call_soon`).
        late: the answer to requests that were not answered in time.
        name: the name of the thread.
    """

    def __init__(
        self,
        listening: list[socket.socket],
        *,
        paths: frozenset[str],
        ask: Callable[[Request], None],
        late: Page,
        name: str,
    ) -> None:
        self.paths = paths
        self.ask = ask
        self._listening = listening
        self._late = late
        self._selector = selectors.DefaultSelector()
        self._open: dict[Request, None] = {}
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._waker, self._wakes = socket.socketpair()
        self._waker.settimeout(0)
        self._wakes.settimeout(0)
        self._is_stopping = False
        self._is_accepting = False
        self._cpu = CpuShare(_SHARE, burst_seconds=_BURST_SECONDS, now=time.monotonic())
        self._refused: Counter[str] = Counter()
        self._logged_at = -_LOG_SECONDS
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection, and return when the thread has ended."""
        self._is_stopping = True
        self.call_soon(lambda: None)
        self._thread.join(_STOP_SECONDS)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function in the server's thread; thread-safe."""
        self._calls.put(function)
        with suppress(OSError):  # enough wake-ups are under way, or the server has stopped
            self._waker.send(b"\0")

    # -- called by requests, in the server's thread

    def watch(self, request: Request, events: int) -> None:
        """Wake a request for these events, and no others; 0 for none."""
        with suppress(KeyError):  # it was not watched
            self._selector.unregister(request)
        if events:
            self._selector.register(request, events, request.ready)

    def forget(self, request: Request) -> None:
        """Drop a request whose connection is about to be closed."""
        if request in self._open:
            del self._open[request]
            self.watch(request, 0)

    def refused(self, reason: str) -> None:
        """Count a request without an answer, and log the counts from time to time."""
        self._refused[reason] += 1
        now = time.monotonic()
        if now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            logger.warning("health_requests_refused", extra={"requests": dict(self._refused)})
            self._refused.clear()

    # -- the thread

    def _run(self) -> None:
        with self._selector:
            self._selector.register(self._wakes, selectors.EVENT_READ, self._woken)
            while not self._is_stopping:
                try:
                    self._turn()
                except Exception:  # an error here must not end the thread
                    logger.exception("health_error")
                    time.sleep(_REST_AFTER_ERROR_SECONDS)
            for request in list(self._open):
                request.close()
            close_all([*self._listening, self._waker, self._wakes])

    def _turn(self) -> None:
        self._accept_if_there_is_room()
        events = self._selector.select(self._seconds_to_the_next_deadline())
        began = time.thread_time()
        for key, mask in events:
            key.data(mask)
        with suppress(Empty):
            while True:
                self._calls.get_nowait()()
        now = time.monotonic()
        for request in [request for request in self._open if request.deadline <= now]:
            request.overdue(self._late)
        pause_seconds = self._cpu.spend(time.thread_time() - began, now=now)
        if pause_seconds:
            time.sleep(pause_seconds)

    def _seconds_to_the_next_deadline(self) -> float | None:
        if not self._calls.empty():
            return 0
        if not self._open:
            return None
        return max(0.0, min(request.deadline for request in self._open) - time.monotonic())

    def _woken(self, _: int) -> None:
        with suppress(BlockingIOError):
            self._wakes.recv(_WAKE_UPS)

    def _has_room(self) -> bool:
        """Return True if another connection may be accepted: one is free, or one of the open ones may be closed."""
        return len(self._open) < MAX_CONNECTIONS or any(not request.is_waiting for request in self._open)

    def _accept_if_there_is_room(self) -> None:
        has_room = self._has_room()
        if has_room != self._is_accepting:
            self._is_accepting = has_room
            for listening in self._listening:
                if has_room:
                    accept = partial(self._accept, listening)
                    self._selector.register(listening, selectors.EVENT_READ, accept)
                else:
                    self._selector.unregister(listening)

    def _accept(self, listening: socket.socket, _: int) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            if not self._has_room():
                return
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left, or no memory
                self.refused(errno.errorcode.get(error.errno or 0, "error"))
                self._make_room()
                time.sleep(_REST_AFTER_ERROR_SECONDS)
                return
            connection.settimeout(0)
            if len(self._open) >= MAX_CONNECTIONS:
                self.refused("too_many")
                self._make_room()
            request = Request(self, connection)
            self._open[request] = None
            self._selector.register(request, selectors.EVENT_READ, request.ready)
            request.ready(selectors.EVENT_READ)  # most have sent their request by now

    def _make_room(self) -> None:
        """Close the oldest connection without a request, or else one whose client does not read its answer."""
        may_go = [request for request in self._open if not request.is_waiting]
        oldest = next((request for request in may_go if request.is_dispensable), next(iter(may_go), None))
        if oldest is not None:
            oldest.close()
