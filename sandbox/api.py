"""A Managem API that answers like the documented endpoint and fails as scripted.

In a test::

    async with SandboxApi(script=Script(rules=(Rule(ids="missing*", then=Respond(status=404)),))) as api:
        ...  # call api.url
        assert [call.answer for call in api.calls()] == ["200"]

In a thread of its own: ``with run_in_thread(SandboxApi()) as api``. As a program: ``python -m sandbox --help``.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from sandbox.call_log import Call, CallLog, Stats
from sandbox.connection import Connection
from sandbox.script import Script
from sandbox.upstream import Reply, Upstream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from types import TracebackType

    from sandbox.faults import Drop
    from sandbox.http_request import Request

_BACKLOG = 4096  # a benchmark opens all its connections at once


class SandboxApi:
    """The sandbox API on its own port; 0 means a free one, which stays the same after a stop and another start.

    While it is stopped, connections to it are refused. ``script``, ``token``, ``calls``, ``stats`` and ``reset`` may
    be used from any thread, also while it is stopped. ``token`` None accepts any call. Of the calls, the newest
    ``log_limit`` are kept.
    """

    def __init__(
        self,
        *,
        script: Script | None = None,
        token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        log_limit: int = 100_000,
    ) -> None:
        self.host = host
        self.port = port
        self._ssl_context = ssl_context
        self._upstream = Upstream(script=script or Script(), token=token, log=CallLog(log_limit))
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    @property
    def url(self) -> str:
        """The base URL, valid once the API was started."""
        return f"http{'s' if self._ssl_context else ''}://{self.host}:{self.port}"

    @property
    def script(self) -> Script:
        """The script: when it fails, and how."""
        return self._upstream.script

    @script.setter
    def script(self, script: Script) -> None:
        self._upstream.script = script

    @property
    def token(self) -> str | None:
        """The one bearer token that is accepted."""
        return self._upstream.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._upstream.token = token

    def calls(self) -> list[Call]:
        """Return the log of calls, oldest first."""
        return self._upstream.log.calls()

    def stats(self) -> Stats:
        """Return the counts."""
        return self._upstream.log.stats()

    def reset(self) -> None:
        """Empty the log and its counts; calls of an id are numbered from 1 again."""
        self._upstream.log.reset()

    async def start(self) -> None:
        """Start to listen."""
        service = _Service(self._upstream, self._connections)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(service), self.host, self.port, ssl=self._ssl_context, backlog=_BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        if self._server is None:
            return
        server, self._server = self._server, None
        await _accept_no_more(server)
        server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.closed for connection in connections))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _accept_no_more(server: asyncio.Server) -> None:
    """Accept no more connections, and wait until each accepted one has reached its protocol.

    asyncio accepts a connection in one turn of its loop, makes the transport in the next one, and calls the protocol in
    the one after. A server that is closed in between leaves the socket to the garbage collector, or open without an
    owner (https://github.com/python/cpython/issues/109564).
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening)
    for _ in ("the transports are made", "the protocols are called"):
        await asyncio.sleep(0)


class _Service:
    """What the connections ask for: the upstream's answers, and a register of those that are open."""

    def __init__(self, upstream: Upstream, connections: set[Connection]) -> None:
        self._upstream = upstream
        self._connections = connections
        self._accepted = 0

    def opened(self, connection: Connection) -> Drop | None:
        self._connections.add(connection)
        self._accepted += 1
        return self._upstream.accept(self._accepted)

    def serve(self, request: Request) -> Reply:
        return self._upstream.serve(request)

    def ended(self, call: Call, *, complete: bool) -> None:
        self._upstream.log.end(call, complete=complete)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)


@contextmanager
def run_in_thread(api: SandboxApi) -> Iterator[SandboxApi]:
    """Run the server on an event loop in a thread of its own, for callers that have no loop or whose loop may stall."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves the caller's loop alone
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever, name="sandbox-api", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(api.start(), loop).result()
            try:
                yield api
            finally:
                asyncio.run_coroutine_threadsafe(api.stop(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
