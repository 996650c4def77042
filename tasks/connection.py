"""One HTTP/1.1 connection: takes bytes only while an answer is due, and keeps one answer for each request.

aiohttp's own protocol parses and queues whatever a host sends, asked for or not, and its parser drops an answer when
anything wrong follows it in the same packet (a body behind a 304, more bytes than ``Content-Length`` says). Here the
head of an answer is parsed on its own, so that what follows cannot undo it. The first byte that no request asked for
closes the connection: a host that sends answers for ever costs no memory, and none of them is taken for the answer to
a later request.

This leans on parts of aiohttp that its documentation does not promise, as ``tasks.transport`` does.
"""

from __future__ import annotations

import random
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD

if TYPE_CHECKING:
    import asyncio

    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

MAX_HEAD_BYTES: Final = 64 * 1024
"""The largest head of an answer, with the interim answers before it. Real ones have a few kilobytes at most."""

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of one answer as it is sent. A body of 1 MiB in the smallest chunks has 6 MiB; only chunk extensions
and trailers could make it more."""

LIFE_SECONDS: Final = (30.0, 60.0)
"""The shortest and the longest life of a connection. A new one finds the address that the name has by then, and the
certificates that the host shows by then. Each has its own, so that not all are opened anew at once."""

_END_OF_HEAD = b"\r\n\r\n"
_INTERIM = frozenset(range(100, 200)) - {HTTPStatus.SWITCHING_PROTOCOLS}
_FINAL = range(200, 600)
_WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_UNASKED = "The host sent an answer that nobody had asked for."


class HostConnection(ResponseHandler):
    """What aiohttp's connector opens, keeps and closes.

    Attributes:
        ends_at: the moment, on the loop's clock, after which the connection should not be used again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.ends_at = loop.time() + random.uniform(*LIFE_SECONDS)  # noqa: S311 - it spreads, and is no secret
        #: Of the answer that is due or came last; None: its head is still to come.
        self._body: StreamReader | None = EMPTY_PAYLOAD
        self._received = 0
        self._last_bytes = b""
        self._spoke_unasked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare for all answers of this connection."""
        super().connection_made(transport)
        self.set_response_params(
            auto_decompress=False,
            read_until_eof=True,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_HEAD_BYTES // len("a:\r\n"),
        )

    async def ask(self, request: bytes) -> tuple[RawResponseMessage, StreamReader]:
        """Send a request, and return the head of its answer and its body, which may still be on its way.

        Raises:
            httpx.RemoteProtocolError: the host spoke before it was asked, or its head is too large.
            aiohttp.ClientError: the connection is lost.
            aiohttp.http_exceptions.HttpProcessingError: the answer is no HTTP.
        """
        if self._spoke_unasked:
            raise httpx.RemoteProtocolError(_UNASKED)
        if self.transport is None:  # the host closed it as soon as it was open
            raise aiohttp.ServerDisconnectedError
        self._body = None
        self._received = 0
        self._last_bytes = b""
        self.transport.write(request)
        message, body = await self.read()
        if message.code not in _FINAL:
            raise httpx.RemoteProtocolError(f"The host answered with the status {message.code}, which ends no request.")
        return message, body

    def data_received(self, data: bytes) -> None:
        """Take what the host sent; ``b""`` is aiohttp's way to go on with what it has held back."""
        if self._body is None:
            data = self._take_heads(data)
            if not data:
                return
        body = self._body
        if data and (body is None or body.is_eof()):
            self._spoke_unasked = True
            self.force_close()
            self.abort()
            return
        self._received += len(data)
        if self._received > MAX_ANSWER_BYTES:
            self._give_up(f"The host sent an answer of over {MAX_ANSWER_BYTES:,} bytes.")
            return
        error = self._parse(data)
        if body is None:
            return
        if not body.is_eof():
            if error is not None:  # or the reader would only hear that the connection is lost
                body.set_exception(error)
        elif self._has_begun_another():
            self.force_close()

    def _parse(self, data: bytes) -> HttpProcessingError | None:
        """What aiohttp's own ``data_received`` does, less timers, of which this client has one over the whole call."""
        if self._parser is None:  # the connection is lost
            return None
        try:
            messages, self._upgraded, _ = self._parser.feed_data(data)
        except Exception:  # noqa: BLE001 - as aiohttp has it; what it was may quote the host
            if self.transport is not None:
                self.transport.close()
            error = HttpProcessingError()
            self.set_exception(error)
            return error
        for message, body in messages:
            if message.should_close:
                self.force_close()
            self._payload = body
            self._take(message, EMPTY_PAYLOAD if message.code in _WITHOUT_BODY else body)
        return None

    def _take(self, message: RawResponseMessage, body: StreamReader) -> None:
        """Take a head that was parsed."""
        if message.code in _INTERIM:
            return
        if self._body is not None:  # a second answer, right behind the first one
            self.force_close()
            return
        self._body = body
        if message.code in _WITHOUT_BODY and _announces_body(message):
            self.force_close()  # if it comes all the same, it would be in the way of the next answer
        self.feed_data((message, body))

    def _take_heads(self, data: bytes) -> bytes:
        """Parse heads, one by one, until the one of the answer is complete; return what follows it."""
        while data and self._body is None:
            seen = self._last_bytes + data  # the end of a head may come in two packets
            end = seen.find(_END_OF_HEAD)
            size = len(data) if end < 0 else end + len(_END_OF_HEAD) - len(self._last_bytes)
            self._last_bytes = seen[1 - len(_END_OF_HEAD) :] if end < 0 else b""
            self._received += size
            if self._received > MAX_HEAD_BYTES:
                self._give_up(f"The head of the host's answer has over {MAX_HEAD_BYTES:,} bytes.")
                return b""
            if self._parse(data[:size]) is not None:
                return b""
            data = data[size:]
        return data

    def _has_begun_another(self) -> bool:
        """Whether the beginning of another answer came in one packet with the end of this one."""
        if self._parser is None:
            return False
        try:
            return self._parser.feed_eof() is not None
        except HttpProcessingError:
            return True

    def _give_up(self, why: str) -> None:
        error = httpx.RemoteProtocolError(why)
        if self._body is None:
            self.set_exception(error)
        else:
            self._body.set_exception(error)
        self.force_close()
        self.abort()


def _announces_body(message: RawResponseMessage) -> bool:
    headers = message.headers
    return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
