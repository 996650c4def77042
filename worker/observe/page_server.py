"""A small HTTP server for a few pages, built so that no client that reaches its port can harm the worker.

It has a thread and a selector of its own, so that the asyncio loop never waits for a client. A hostile client can use
up only bounded resources: connections, bytes of a request, seconds for each, and a share of one core. If there are more
connections than it keeps, it closes the one that has been silent longest, so that other clients still get answers while
one opens thousands.

It reads the request line, and of the headers those two that choose the form of an answer. Bodies are ignored, and each
connection serves one request. So there is no HTTP parser that a malformed request could keep busy.
"""

from __future__ import annotations

import errno
import logging
import re
import selectors
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from functools import partial
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from worker.observe.cpu_share import CpuShare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

#: Connections open at once: far more than an orchestrator and a few scrapers need, few beside what the calls need.
MAX_CONNECTIONS = 32
#: Connections that the kernel queues while the thread is busy; they cost no descriptor. Clients beyond it wait a second
#: before they try again, so a burst of some thousand should fit.
_BACKLOG = 4096
#: Connections accepted at once, before the open ones get their turn.
_ACCEPTS_AT_ONCE = 32
#: The largest request line and headers. A probe sends 100 bytes, a browser with cookies a few thousand.
_MAX_HEAD_BYTES = 16 * 1024
#: Bytes that a client may send after its answer before it is cut off.
_MAX_REST_BYTES = 256 * 1024
_READ_BYTES = 16 * 1024
#: Seconds for a client to send its request, and again for the answer to be made and to reach it.
_REQUEST_SECONDS = 5.0
#: Seconds for a client to close after its answer. If the server closed first, the client could lose the answer.
_CLOSE_SECONDS = 1.0
#: The share of a core that a flood of requests may take from the jobs, after so many seconds of work at once. That time
#: is enough for the first thousands of connections of a flood; then other clients get answers again.
_SHARE = 1 / 6
_BURST_SECONDS = 0.5
_REST_AFTER_ERROR_SECONDS = 0.1
#: Refused requests are counted, and logged once in so many seconds.
_LOG_SECONDS = 60.0

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) +(?:https?://[^/?#\s]*)?(/[^?#\s]*|\*)(?:[?#]\S*)? +HTTP/1\.[0-9] *\r?")
_HEADERS = re.compile(rb"^(Accept|Accept-Encoding)[ \t]*:([^\r\n]{0,1000})", re.IGNORECASE | re.MULTILINE)
_NOT_AVAILABLE = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a request; ``encoding`` names the content coding of the body, if it has one."""

    status: HTTPStatus
    content_type: str
    body: bytes
    encoding: str = ""


def listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets. They are made before the start, so that a port in use stops it.

    ``::`` means every IPv4 and IPv6 address, also on hosts that lack one of the two; a name means all its addresses.

    Raises:
        OSError: no address can be used, or the port is in use on one of them.
    """
    if host == "::":
        if socket.has_dualstack_ipv6():
            return [_listening(socket.AF_INET6, ("::", port), both=True)]
        host = "0.0.0.0"  # noqa: S104 - a host without IPv6: the other half of what was asked for
    sockets: list[socket.socket] = []
    lacking: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            sockets.append(_listening(family, address))
        except OSError as error:
            if error.errno not in _NOT_AVAILABLE:
                _close_all(sockets)
                raise
            lacking = error
    if not sockets:
        raise lacking or OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return sockets


def _listening(family: int, address: tuple[Any, ...], *, both: bool = False) -> socket.socket:
    listening = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    listening.settimeout(0)
    return listening


def _close_all(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()


class _State(Enum):
    READING = "reading"
    WAITING = "waiting"
    WRITING = "writing"
    CLOSING = "closing"
    CLOSED = "closed"


class Request:
    """A request and its connection. Only the server's thread may use it."""

    def __init__(self, server: PageServer, connection: socket.socket) -> None:
        self.path = ""
        #: What ``Accept`` and ``Accept-Encoding`` say; empty: the request does not have them.
        self.accept = self.accept_encoding = ""
        self._is_head = False
        self._server = server
        self._socket = connection
        self._state = _State.READING
        self._deadline = time.monotonic() + _REQUEST_SECONDS
        self._received = bytearray()
        self._rest = 0
        self._to_send = memoryview(b"")

    @property
    def is_waiting(self) -> bool:
        """True while it waits for its answer."""
        return self._state is _State.WAITING

    @property
    def is_dispensable(self) -> bool:
        """True if its connection may be closed first: it has sent no request yet, or has its answer."""
        return self._state in {_State.READING, _State.CLOSING}

    @property
    def deadline(self) -> float:
        """The monotonic time at which it is overdue."""
        return self._deadline

    def fileno(self) -> int:
        """Return the descriptor, for the selector."""
        return self._socket.fileno()

    def ready(self, events: int) -> None:
        """Receive and send what the selector reports as possible."""
        try:
            if events & selectors.EVENT_READ and self._state is not _State.CLOSED:
                self._read()
            if events & selectors.EVENT_WRITE and self._state is _State.WRITING:
                self._write()
        except OSError:  # the client is gone
            self.close()
        except Exception:  # an error here costs only one answer
            logger.exception("health_error")
            self.close()

    def answer(self, page: Page) -> None:
        """Send the answer, if the client still waits for it."""
        if self.is_waiting:
            self._send(page)

    def overdue(self, late: Page) -> None:
        """End a request whose time is over."""
        if self._state is _State.WAITING:
            self._send(late)
            return
        if self._state is _State.READING:
            self._server.refused("too_slow")
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._server.forget(self)
        self._state = _State.CLOSED
        self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            # A client may close its half of the connection after the request and still read the answer.
            if self._state in {_State.READING, _State.CLOSING}:
                self.close()
            else:
                self._server.watch(self, selectors.EVENT_WRITE if self._state is _State.WRITING else 0)
        elif self._state is _State.READING:
            searched = max(0, len(self._received) - 3)
            self._received += data
            self._look_for_the_end(searched)
        else:
            self._rest += len(data)
            if self._rest > _MAX_REST_BYTES:
                self.close()

    def _look_for_the_end(self, searched: int) -> None:
        line_end = self._received.find(b"\n", 0, _MAX_HEAD_BYTES)
        match = _REQUEST_LINE.fullmatch(self._received, 0, line_end) if line_end >= 0 else None
        if line_end >= 0 and match is None:
            self._refuse(HTTPStatus.BAD_REQUEST, "not_http")
        elif _end_of_head(self._received, searched) and match is not None:
            self._asked(match)
        elif len(self._received) > _MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._server.refused(reason)
        self._send(_plain(status))

    def _asked(self, match: re.Match[bytes]) -> None:
        method, target = match[1], match[2]
        self.path = target.decode("latin-1")
        headers = {name.lower(): value.decode("latin-1").strip() for name, value in _HEADERS.findall(self._received)}
        self.accept, self.accept_encoding = headers.get(b"accept", ""), headers.get(b"accept-encoding", "")
        self._received.clear()
        self._is_head = method == b"HEAD"
        self._state = _State.WAITING
        self._deadline = time.monotonic() + _REQUEST_SECONDS
        if self.path not in self._server.paths:
            self._send(_plain(HTTPStatus.NOT_FOUND))
        elif method not in {b"GET", b"HEAD"}:
            self._send(_plain(HTTPStatus.METHOD_NOT_ALLOWED))
        else:
            self._server.ask(self)

    def _send(self, page: Page) -> None:
        head = (
            f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\nContent-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\nDate: {formatdate(usegmt=True)}\r\nConnection: close\r\n"
        )
        if page.encoding:
            head += f"Content-Encoding: {page.encoding}\r\nVary: Accept, Accept-Encoding\r\n"
        if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
            head += "Allow: GET, HEAD\r\n"
        self._received.clear()
        self._to_send = memoryview(f"{head}\r\n".encode() + (b"" if self._is_head else page.body))
        self._state = _State.WRITING
        self._deadline = time.monotonic() + _REQUEST_SECONDS
        try:
            self._write()
        except OSError:  # the client is gone
            self.close()

    def _write(self) -> None:
        with suppress(BlockingIOError):
            self._to_send = self._to_send[self._socket.send(self._to_send) :]
        if self._to_send:
            self._server.watch(self, selectors.EVENT_READ | selectors.EVENT_WRITE)
            return
        self._state = _State.CLOSING
        self._deadline = time.monotonic() + _CLOSE_SECONDS
        self._socket.shutdown(socket.SHUT_WR)
        self._server.watch(self, selectors.EVENT_READ)


def _end_of_head(received: bytearray, searched: int) -> bool:
    return received.find(b"\r\n\r\n", searched) >= 0 or received.find(b"\n\n", searched) >= 0


def _plain(status: HTTPStatus) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{status.value}: {status.phrase}\n".encode())


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
        self._thread.join(_REQUEST_SECONDS)

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
            _close_all([*self._listening, self._waker, self._wakes])

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
            self._wakes.recv(_READ_BYTES)

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
