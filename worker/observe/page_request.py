"""A request for a page, from its first byte to the end of its connection.

It reads the request line, and of the headers those two that choose the form of an answer. Bodies are ignored, and each
connection serves one request. So there is no HTTP parser that a malformed request could keep busy.
"""

from __future__ import annotations

import logging
import re
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import Protocol

logger = logging.getLogger(__name__)

#: The largest request line and headers. A probe sends 100 bytes, a browser with cookies a few thousand.
_MAX_HEAD_BYTES = 16 * 1024
#: Bytes that a client may send after its answer before it is cut off.
_MAX_REST_BYTES = 256 * 1024
_READ_BYTES = 16 * 1024
#: Seconds for a client to send its request, and again for the answer to be made and to reach it.
_REQUEST_SECONDS = 5.0
#: Seconds for a client to close after its answer. If the server closed first, the client could lose the answer.
_CLOSE_SECONDS = 1.0

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) +(?:https?://[^/?#\s]*)?(/[^?#\s]*|\*)(?:[?#]\S*)? +HTTP/1\.[0-9] *\r?")
_HEADERS = re.compile(rb"^(Accept|Accept-Encoding)[ \t]*:([^\r\n]{0,1000})", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a request; ``encoding`` names the content coding of the body, if it has one."""

    status: HTTPStatus
    content_type: str
    body: bytes
    encoding: str = ""


class RequestServer(Protocol):
    """What a request needs of its server."""

    paths: frozenset[str]

    def ask(self, request: Request) -> None:
        """Ask for the answer to a request for one of the paths."""

    def watch(self, request: Request, events: int) -> None:
        """Wake a request for these events, and no others; 0 for none."""

    def forget(self, request: Request) -> None:
        """Drop a request whose connection is about to be closed."""

    def refused(self, reason: str) -> None:
        """Count a request without an answer."""


class _State(Enum):
    READING = "reading"
    WAITING = "waiting"
    WRITING = "writing"
    CLOSING = "closing"
    CLOSED = "closed"


class Request:
    """A request and its connection. Only the server's thread may use it."""

    def __init__(self, server: RequestServer, connection: socket.socket) -> None:
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
