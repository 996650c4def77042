"""POST requests to one host, over aiohttp's connections, in httpx's terms: ``httpx-aiohttp`` less its faults and cost.

aiohttp's connector resolves, opens, verifies, pools and closes the connections, and its C parser reads the answers
(``tasks.managem.connection``). The request is written here, without a model of it: httpx's own looks at every header
twice in either direction. Of what was measured (``docs/api-client.md``) that is the fastest, and nothing on its way can
re-quote a path, follow a redirect, keep a cookie or read a proxy variable: no code that does is passed.

Guaranteed: the target of a request goes into its first line byte for byte. Whatever network and host do ends in an
httpx exception whose message is a sentence that quotes nothing sent or received: ``ConnectError`` and
``ReadError`` where the network is at fault, ``RemoteProtocolError`` where the answer is, :class:`NoResourcesError`
where this machine is. A connection that is not known to be clean is aborted and never used again, and none is used for
much longer than a minute, so that the host's name may move.

Left out: timeouts (the caller sets one over the whole call), request bodies, content encodings, HTTP/2, retries. When
the host closes an idle connection in the very moment a request goes out on it, the request ends in a ``ReadError``;
``KEEP_ALIVE_SECONDS`` makes that rare.

This leans on parts of aiohttp that its documentation does not promise (``ResponseHandler``, ``ClientRequest``), so its
minor version has to stay pinned. ``tests/managem`` proves against real sockets that they work as they are used here.
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
"""How long an idle connection is kept. The most impatient of the common servers (Node, uvicorn, Apache) close one after
5 seconds; below that it is nearly always us who close it, so that no request meets a closing one."""

NAME_SECONDS: Final = 10
"""How long the addresses of the host's name are taken for granted."""

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
        connections: connections at once at most.
    """

    def __init__(self, *, origin: httpx.URL, fields: Sequence[tuple[bytes, bytes]], connections: int) -> None:
        self._origin = origin
        self._host = origin.netloc.decode("ascii")
        self._fields = b"".join(
            b"%s: %s\r\n" % field for field in [(b"Host", origin.netloc), *fields, (b"Content-Length", b"0")]
        )
        self._lines = 2 + self._fields.count(b"\r\n")  # with the first one, and the empty one at the end
        self._connections = connections
        self._trust = Trust() if origin.scheme == "https" else None
        self._pool: tuple[aiohttp.TCPConnector, aiohttp.ClientRequest] | None = None
        self._closed = False

    def request(self, target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> Request:
        """Make a request with these further header fields."""
        own = b"".join([b"%s: %s\r\n" % field for field in fields])
        return Request(b"POST %s HTTP/1.1\r\n%s%s\r\n" % (target, self._fields, own), self._lines + len(fields))

    async def send(self, request: Request) -> ResponseStream:
        """Send a request, and return its answer as soon as the head is there.

        The answer must be closed, whatever reading it led to.

        Raises:
            httpx.LocalProtocolError: a header or the target holds a line break; nothing was sent.
            httpx.ConnectError: there is no connection to be had: name not resolved, refused, TLS, client closed.
            NoResourcesError: nor could there be one: no file descriptor or memory is left.
            httpx.ReadError: the connection was lost before the head of the answer was there.
            httpx.RemoteProtocolError: what came is no HTTP answer, or one beyond the limits.
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
                # Nobody cancelled the caller: this is how a closing connector turns away those who wait for it.
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
        """Close every connection: calls in flight fail, and so does every later one."""
        self._closed = True
        if self._pool is not None:
            connector, _ = self._pool
            await connector.close()

    def _opened(self) -> tuple[aiohttp.TCPConnector, aiohttp.ClientRequest]:
        """Return the pool, made in the first call because it belongs to the loop that runs."""
        if self._closed:
            raise httpx.ConnectError(_CLOSED)
        if self._pool is None:
            connector = _Connector(limit=self._connections, trust=self._trust)
            # A connector finds connections by the request they are for. This one is only ever shown to it, never sent.
            url = yarl.URL(f"{self._origin.scheme}://{self._host}/", encoded=True)
            route = aiohttp.ClientRequest("POST", url, loop=asyncio.get_running_loop())
            self._pool = connector, route
        return self._pool


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, of connections of ours, each verified against the authorities of the moment it is opened."""

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
    """A request as it goes out. It has no ``repr`` of its own, so that no traceback with values shows the token."""

    __slots__ = ("head", "lines")

    def __init__(self, head: bytes, lines: int) -> None:
        self.head = head
        self.lines = lines


class ResponseStream:
    """An answer whose head is there.

    Attributes:
        status: 200 to 599.
        headers: its header fields; names in any case.
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
            # aiohttp 3.14 wakes whoever waits for the rest of a body when the host hangs up, but not when it closes the
            # connection itself, over bytes that are no HTTP.
            self._lost = protocol.closed
            if self._lost is None:
                self._end()
            else:
                self._lost.remove_done_callback(_look_at)  # of an earlier answer on this connection
                self._lost.add_done_callback(_look_at)
                self._lost.add_done_callback(self._end)

    @property
    def is_read(self) -> bool:
        """Whether all of the body was read."""
        return self._payload.at_eof()

    async def read(self) -> bytes:
        """Return what has come of the body, still encoded; wait where nothing has.

        Raises:
            httpx.ReadError: the connection was lost before the answer was complete.
            httpx.RemoteProtocolError: what came is no HTTP.
        """
        try:
            return await self._payload.readany()
        except _FOREIGN as error:
            raise _no_answer(error, self._host, "before its answer was complete") from error

    def close(self) -> None:
        """Give the connection back if the whole body was read and it is not too old, abort it otherwise."""
        if self._lost is not None:
            self._lost.remove_done_callback(self._end)
        if self._payload.at_eof() and asyncio.get_running_loop().time() < self._protocol.ends_at:
            self._connection.release()
        else:
            _abort(self._connection)

    def _end(self, _: asyncio.Future[None] | None = None) -> None:
        if not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(self._protocol.exception() or aiohttp.ClientPayloadError())


def _look_at(lost: asyncio.Future[None]) -> None:
    """Take note of how a connection ended, or asyncio logs that nobody did."""
    if not lost.cancelled():
        lost.exception()


def _abort(connection: Connection) -> None:
    """Drop a connection at once; closing a TLS one politely could wait 30 seconds for a host that is gone."""
    if connection.protocol is not None:
        connection.protocol.abort()
    connection.close()


def _lack(error: BaseException) -> str | None:
    """What this machine lacks for a connection; None: that is not why there is none."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_DESCRIPTORS or (isinstance(error, aiohttp.ClientConnectorDNSError) and not _may_open_sockets()):
        return _NO_DESCRIPTOR_LEFT
    if number in _NO_MEMORY:
        return f"The worker's machine has no memory for another connection: {os.strerror(number)}."
    return None


def _may_open_sockets() -> bool:
    """Whether there is a file descriptor left; a resolver that has none says only that it found no name."""
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
        case aiohttp.ClientConnectorError(strerror=None):  # in the middle of a TLS handshake
            return f"No connection to {host}: it broke off the connection before it was open."
        case OSError():
            return f"No connection to {host}: {error.strerror or type(error).__name__}."
        case _:
            return f"No connection to {host}: {type(error).__name__}."


def _no_answer(error: BaseException, host: str, moment: str) -> httpx.TransportError:
    """Say what became of a request that was sent. What the host sent is not quoted: it could echo the token."""
    if isinstance(error, HttpProcessingError):
        return httpx.RemoteProtocolError(f"{host} sent what is no HTTP answer.")
    reason = error.strerror if isinstance(error, OSError) else None
    return httpx.ReadError(f"{host} broke off the connection {moment}" + (f": {reason}." if reason else "."))
