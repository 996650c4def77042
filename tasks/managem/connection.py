"""One HTTP/1.1 connection: accepts bytes only while an answer is due, and one answer for each request.

aiohttp's own protocol parses and queues everything that a host sends, even without a request. Its parser also drops an
answer if something invalid follows it in the same packet (a body behind a 304, more bytes than ``Content-Length``).
Here the head of an answer is parsed by itself, so that later bytes cannot undo it, and a second time, repaired, if it
breaks a rule that browsers and httpx tolerate. The first byte without a request closes the connection. So a host that
sends answers for ever costs no memory, and none of them is taken for the answer to a later request.

This depends on parts of aiohttp that its documentation does not promise, as ``tasks.managem.transport`` does.
"""

from __future__ import annotations

import random
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD

from tasks.managem import answer_head

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

MAX_HEAD_BYTES: Final = 64 * 1024
"""The largest head of an answer, including interim answers before it. Real ones have a few kilobytes at most."""

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of one answer on the wire. A body of 1 MiB in the smallest chunks has 6 MiB; only chunk extensions and
trailers could add more."""

LIFE_SECONDS: Final = (30.0, 60.0)
"""The shortest and the longest life of a connection, in seconds. A new connection uses the name's
present address and checks the host's present certificate. The life is random, so that not all are reopened at once."""

_LINE_BREAKS = b"\r\n"
_END_OF_HEAD = re.compile(rb"\n\r?\n")
#: Finds out at once that an answer is no HTTP, before its head is complete.
_BEGINS_AS_HTTP = re.compile(rb"H(?:\Z|T(?:\Z|T(?:\Z|P(?:\Z|/))))", re.IGNORECASE)
_INTERIM = frozenset(range(100, 200)) - {HTTPStatus.SWITCHING_PROTOCOLS}
_FINAL = range(200, 600)
_WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_UNASKED = "The host sent an answer that nobody had asked for."


class HostConnection(ResponseHandler):
    """The connection that aiohttp's connector opens, keeps and closes.

    Attributes:
        ends_at: the time, on the loop's clock, after which the connection should not be used again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.ends_at = loop.time() + random.uniform(*LIFE_SECONDS)  # noqa: S311 - jitter is no secret
        #: The body of the answer that is due or came last; None: its head is not complete yet.
        self._body: StreamReader | None = EMPTY_PAYLOAD
        self._received = 0
        self._head = b""
        self._sent_unasked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up the parser for all answers of this connection."""
        super().connection_made(transport)
        self._begin_to_parse()

    def _begin_to_parse(self) -> None:
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
            httpx.RemoteProtocolError: the host sent something before the request, or its head is too large.
            aiohttp.ClientError: the connection is lost.
            aiohttp.http_exceptions.HttpProcessingError: the answer is no HTTP.
        """
        if self._sent_unasked:
            raise httpx.RemoteProtocolError(_UNASKED)
        if self.transport is None:  # the host closed it right after opening
            raise aiohttp.ServerDisconnectedError
        self._body = None
        self._received = 0
        self._head = b""
        self.transport.write(request)
        message, body = await self.read()
        if message.code not in _FINAL:
            raise httpx.RemoteProtocolError(f"The host answered with the status {message.code}, which ends no request.")
        return message, body

    def data_received(self, data: bytes) -> None:
        """Process what the host sent; aiohttp passes ``b""`` to continue with what it held back."""
        if self._body is None:
            data = self._take_heads(data)
            if not data:
                return
        body = self._body
        if data and (body is None or body.is_eof()):
            self._sent_unasked = True
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
            if error is not None:  # else the reader would only learn that the connection is lost
                body.set_exception(error)
        elif self._has_begun_another():
            self.force_close()

    def _parse(self, data: bytes) -> HttpProcessingError | None:
        """Do what aiohttp's own ``data_received`` does, without its timers: this client has one for the whole call."""
        if self._parser is None:  # the connection is lost
            return None
        try:
            messages, self._upgraded, _ = self._parser.feed_data(data)
        except Exception:  # noqa: BLE001 - as in aiohttp; the error may quote the host
            return self._refuse()
        self._take_all(messages)
        return None

    def _parse_head(self, head: bytes) -> bool:
        """Parse one whole head; False: it is invalid, or the connection is lost."""
        if self._parser is None:
            return False
        try:
            messages, self._upgraded, _ = self._parser.feed_data(head)
        except Exception:  # noqa: BLE001 - as above
            self._begin_to_parse()
            try:
                messages, self._upgraded, _ = self._parser.feed_data(answer_head.repaired(head))
            except Exception:  # noqa: BLE001 - as above
                self._refuse()
                return False
        self._take_all(messages)
        return True

    def _refuse(self) -> HttpProcessingError:
        """Close the connection, because the host sent no HTTP."""
        if self.transport is not None:
            self.transport.close()
        error = HttpProcessingError()
        self.set_exception(error)
        return error

    def _take_all(self, messages: Iterable[tuple[RawResponseMessage, StreamReader]]) -> None:
        for message, body in messages:
            if message.should_close:
                self.force_close()
            self._payload = body
            self._take(message, EMPTY_PAYLOAD if message.code in _WITHOUT_BODY else body)

    def _take(self, message: RawResponseMessage, body: StreamReader) -> None:
        """Process a parsed head."""
        if message.code in _INTERIM:
            return
        if self._body is not None:  # a second answer, right behind the first one
            self.force_close()
            return
        self._body = body
        if message.code in _WITHOUT_BODY and _announces_body(message):
            self.force_close()  # if the body comes all the same, it would be read as the next answer
        self.feed_data((message, body))

    def _take_heads(self, data: bytes) -> bytes:
        """Parse heads, one by one, until the one of the answer is complete; return what follows it."""
        while data and self._body is None:
            begun = self._head
            seen = begun + data if begun else data.lstrip(_LINE_BREAKS)  # some hosts send an empty line before it
            end = _END_OF_HEAD.search(seen, max(0, len(begun) - 2))
            head, rest = (seen, b"") if end is None else (seen[: end.end()], seen[end.end() :])
            self._received += len(data) - len(rest)
            if self._received > MAX_HEAD_BYTES:
                self._give_up(f"The head of the host's answer has over {MAX_HEAD_BYTES:,} bytes.")
                return b""
            self._head = head if end is None else b""
            if end is not None:
                if not self._parse_head(head):
                    return b""
            elif head and not _BEGINS_AS_HTTP.match(head):
                self._refuse()
                return b""
            data = rest
        return data

    def _has_begun_another(self) -> bool:
        """Return True if the beginning of another answer came in one packet with the end of this one."""
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
