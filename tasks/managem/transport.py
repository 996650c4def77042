"""Sends POST requests to one host over aiohttp's connections, with httpx's errors: a leaner ``httpx-aiohttp``.

aiohttp's connector resolves, opens, verifies, pools and closes the connections, and its C parser reads the answers
(``tasks.managem.connection``). This module writes the request as bytes; httpx's own model visits every header twice in
each direction. Of the ways that were measured (``docs/api-client.md``) this is the fastest. No code on its way
re-quotes a path, follows a redirect, keeps a cookie or reads a proxy variable.

Guaranteed: the target of a request goes into its first line byte for byte. Every failure is an httpx exception with a
sentence that quotes nothing sent or received: ``ConnectError`` and ``ReadError`` for the network,
``RemoteProtocolError`` for the answer, :class:`NoResourcesError` for this machine. A connection that may be unclean is
aborted and never used again. None is used for much longer than a minute, so that the host's name may move.

Not here: timeouts (the caller sets one for the whole call), request bodies, content encodings, HTTP/2, retries. If the
host closes an idle connection just as a request goes out on it, the request fails with a ``ReadError``;
``KEEP_ALIVE_SECONDS`` makes that rare.

This depends on parts of aiohttp that its documentation does not promise (``ResponseHandler``, ``ClientRequest``), so
its minor version must stay pinned. ``tests/managem`` proves with real sockets that they work as used here.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

import aiohttp
import httpx
import yarl
from aiohttp.http import HttpProcessingError

from tasks.managem.connection import HostConnection
from tasks.managem.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader
    from multidict import CIMultiDictProxy

KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is kept. The fastest of the common servers (Node, uvicorn, Apache) close one after
5 seconds. Below that, the worker nearly always closes first, so that no request meets a closing connection."""

NAME_SECONDS: Final = 10
"""How long the addresses of the host's name are cached, in seconds."""

_CLOSED = "This client is closed."
_NO_TIMEOUT = aiohttp.ClientTimeout()
_FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError)
_NO_DESCRIPTORS: Final = {errno.EMFILE, errno.ENFILE}
_NO_MEMORY: Final = {errno.ENOBUFS, errno.ENOMEM}
_NO_DESCRIPTOR_LEFT: Final = (
    "The worker has no file descriptor left for a connection; raise the limit of its open files (ulimit -n), or lower "
    "CONCURRENCY."
)


class NoResourcesError(httpx.ConnectError):
    """This process, or its machine, lacks what a new connection needs; the host and the network are not at fault."""


class OneHostTransport:
    """Sends POST requests without a body to the host of ``origin``, over at most ``connections`` connections at once.

    Requests beyond that wait for a connection. Certificate and host name are verified (``tasks.managem.trust``). Names
    are resolved in a thread.

    Args:
        origin: scheme, host and port.
        fields: header fields of every request, beside ``Host`` and ``Content-Length``.
        connections: the most connections at once.
    """

    def __init__(self, *, origin: httpx.URL, fields: Sequence[tuple[bytes, bytes]], connections: int) -> None:
        self._origin = origin
        self._host = origin.netloc.decode("ascii")
        self._fields = b"".join(
            b"%s: %s\r\n" % field for field in [(b"Host", origin.netloc), *fields, (b"Content-Length", b"0")]
        )
        self._lines = 2 + self._fields.count(b"\r\n")  # with the request line and the empty line at the end
        self._connections = connections
        self._trust = Trust() if origin.scheme == "https" else None
        self._pool: tuple[aiohttp.TCPConnector, aiohttp.ClientRequest] | None = None
        self._closed = False

    def request(self, target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> Request:
        """Return a request with further header fields."""
        own = b"".join([b"%s: %s\r\n" % field for field in fields])
        return Request(b"POST %s HTTP/1.1\r\n%s%s\r\n" % (target, self._fields, own), self._lines + len(fields))

    async def send(self, request: Request) -> ResponseStream:
        """Send a request, and return its answer as soon as the head is there.

        The caller must close the answer, even after an error in reading it.

        Raises:
            httpx.LocalProtocolError: a header or the target holds a line break; nothing was sent.
            httpx.ConnectError: no connection could be made: name not resolved, refused, TLS, client closed.
            NoResourcesError: no file descriptor or memory is left for a connection.
            httpx.ReadError: the connection was lost before the head of the answer came.
            httpx.RemoteProtocolError: the answer is no HTTP, or beyond the limits.
        """
        if request.head.count(b"\r") != request.lines or request.head.count(b"\n") != request.lines:
            raise httpx.LocalProtocolError("A header or the target of the request holds a line break.")
        connector, route = self._opened()
        try:
            connection = await connector.connect(route, [], _NO_TIMEOUT)
        except _FOREIGN as error:
            lack = _lack(error)
            if lack is not None:
                raise NoResourcesError(lack) from error
            raise httpx.ConnectError(_why_no_connection(error, self._host)) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                # The caller was not cancelled: a closing connector cancels the waits for a connection this way.
                raise httpx.ConnectError(_CLOSED) from None
            raise
        try:
            protocol = cast("HostConnection", connection.protocol)
            message, payload = await protocol.ask(request.head)
            return ResponseStream(connection, protocol, message, payload, self._host)
        except BaseException as error:
            _abort(connection)
            if isinstance(error, _FOREIGN):
                raise _no_answer(error, self._host, "before it answered") from error
            raise

    async def aclose(self) -> None:
        """Close every connection: calls in flight fail, and so do later ones."""
        self._closed = True
        if self._pool is not None:
            connector, _ = self._pool
            await connector.close()

    def _opened(self) -> tuple[aiohttp.TCPConnector, aiohttp.ClientRequest]:
        """Return the pool. The first call makes it, because it belongs to the running loop."""
        if self._closed:
            raise httpx.ConnectError(_CLOSED)
        if self._pool is None:
            connector = _Connector(limit=self._connections, trust=self._trust)
            # A connector finds connections by their request. This request is only shown to it and never sent.
            url = yarl.URL(f"{self._origin.scheme}://{self._host}/", encoded=True)
            route = aiohttp.ClientRequest("POST", url, loop=asyncio.get_running_loop())
            self._pool = connector, route
        return self._pool


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool with our connections, each verified against the authorities at the time it is opened."""

    def __init__(self, *, limit: int, trust: Trust | None) -> None:
        super().__init__(
            limit=limit,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            resolver=aiohttp.ThreadedResolver(),
            ttl_dns_cache=NAME_SECONDS,
        )
        self._factory = cast("functools.partial[ResponseHandler]", functools.partial(HostConnection, self._loop))
        self._trust = trust

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:  # noqa: ARG002 - there is one host
        return None if self._trust is None else self._trust.context()


class Request:
    """The bytes of a request. It has no ``repr`` of its own, so that no traceback with values shows the token."""

    __slots__ = ("head", "lines")

    def __init__(self, head: bytes, lines: int) -> None:
        self.head = head
        self.lines = lines


class ResponseStream:
    """An answer whose head has come.

    Attributes:
        status: 200 to 599.
        headers: its header fields; names are case-insensitive.
    """

    def __init__(
        self,
        connection: Connection,
        protocol: HostConnection,
        message: RawResponseMessage,
        payload: StreamReader,
        host: str,
    ) -> None:
        self.status: int = message.code
        self.headers: CIMultiDictProxy[str] = message.headers
        self._connection = connection
        self._protocol = protocol
        self._payload = payload
        self._host = host
        self._lost: asyncio.Future[None] | None = None
        if not payload.is_eof():
            # aiohttp 3.14 wakes a reader of the body when the host hangs up, but not when aiohttp closes the connection
            # itself because of invalid HTTP.
            self._lost = protocol.closed
            if self._lost is None:
                self._end()
            else:
                self._lost.remove_done_callback(_retrieve)  # left by an earlier answer on this connection
                self._lost.add_done_callback(_retrieve)
                self._lost.add_done_callback(self._end)

    @property
    def is_read(self) -> bool:
        """True once all of the body was read."""
        return self._payload.at_eof()

    async def read(self) -> bytes:
        """Return the next part of the body, still encoded, and wait for it if there is none yet.

        Raises:
            httpx.ReadError: the connection was lost before the answer was complete.
            httpx.RemoteProtocolError: the rest of the answer is no HTTP.
        """
        try:
            return await self._payload.readany()
        except _FOREIGN as error:
            raise _no_answer(error, self._host, "before its answer was complete") from error

    def close(self) -> None:
        """Return the connection to the pool if the whole body was read and it is not too old; else abort it."""
        if self._lost is not None:
            self._lost.remove_done_callback(self._end)
        if self._payload.at_eof() and asyncio.get_running_loop().time() < self._protocol.ends_at:
            self._connection.release()
        else:
            _abort(self._connection)

    def _end(self, _: asyncio.Future[None] | None = None) -> None:
        if not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(self._protocol.exception() or aiohttp.ClientPayloadError())


def _retrieve(lost: asyncio.Future[None]) -> None:
    """Retrieve the error of a closed connection, or asyncio logs that it was never retrieved."""
    if not lost.cancelled():
        lost.exception()


def _abort(connection: Connection) -> None:
    """Drop a connection at once; an orderly TLS close could wait 30 seconds for a host that is gone."""
    if connection.protocol is not None:
        connection.protocol.abort()
    connection.close()


def _lack(error: BaseException) -> str | None:
    """Return what this machine lacks for a connection; None if the reason is another one."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_DESCRIPTORS or (isinstance(error, aiohttp.ClientConnectorDNSError) and not _may_open_sockets()):
        return _NO_DESCRIPTOR_LEFT
    if number in _NO_MEMORY:
        return f"The worker's machine has no memory for another connection: {os.strerror(number)}."
    return None


def _may_open_sockets() -> bool:
    """Return True if a file descriptor is left; a resolver without one only reports that it found no name."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno not in _NO_DESCRIPTORS
    return True


def _why_no_connection(error: BaseException, host: str) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as problem):
            return f"TLS: the certificate of {host} is not accepted: {problem.verify_message.rstrip('.')}."
        case aiohttp.ClientConnectorSSLError():
            return f"TLS: no handshake with {host}: {error.os_error.reason}."
        case aiohttp.ClientConnectorDNSError():
            return f"DNS: the name of {host} cannot be resolved: {error.os_error.strerror}."
        case aiohttp.ClientConnectorError(strerror=None):  # during a TLS handshake
            return f"No connection to {host}: it broke off the connection before it was open."
        case OSError():
            return f"No connection to {host}: {error.strerror or type(error).__name__}."
        case _:
            return f"No connection to {host}: {type(error).__name__}."


def _no_answer(error: BaseException, host: str, when: str) -> httpx.TransportError:
    """Return the error of a request that was sent. It quotes nothing from the host, which could echo the token."""
    if isinstance(error, HttpProcessingError):
        return httpx.RemoteProtocolError(f"{host} sent what is no HTTP answer.")
    reason = error.strerror if isinstance(error, OSError) else None
    return httpx.ReadError(f"{host} broke off the connection {when}" + (f": {reason}." if reason else "."))
