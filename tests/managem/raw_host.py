"""A host made of a bare socket: it does what a test says, byte for byte, and remembers what it saw."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

END_OF_HEAD = b"\r\n\r\n"
PATIENCE_SECONDS = 5.0


class Visit:
    """One connection to a :class:`RawHost`, seen from the host."""

    def __init__(self, host: RawHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """Wait for the head of a request, and remember it; ``IncompleteReadError`` when the client hangs up."""
        head = await self._reader.readuntil(END_OF_HEAD)
        self._host.requests.append(head)
        self._host.changed.set()
        return head

    async def send(self, data: bytes) -> None:
        """Write, and wait until the client has taken enough of it."""
        self._writer.write(data)
        await self._writer.drain()

    def say_goodbye(self) -> None:
        """Send nothing more: a FIN, with our side still open to read."""
        self._writer.write_eof()

    async def client_hangs_up(self) -> None:
        """Wait until the client closes or resets the connection."""
        while await self._reader.read(65_536):
            pass

    def reset(self) -> None:
        """End the connection with a RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class RawHost:
    """Listens on 127.0.0.1, and hands every connection to ``talk``; closes it when that returns.

    The port is a free one unless it is told.

    Attributes:
        requests: the heads of all requests, in order.
        connections: how many there were.
        open_connections: how many there are.
        changed: set when one of them has changed.
    """

    def __init__(
        self,
        talk: Callable[[Visit], Awaitable[None]],
        *,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.open_connections = 0
        self._talk = talk
        self._tls = tls
        self._address = address
        self._asked_port = port
        self.changed = asyncio.Event()
        self._visits: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._welcome, self._address, self._asked_port, ssl=self._tls, backlog=512
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where to call it."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition over the attributes of this host."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain until {what}") from None

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._visits.add(task)
        self.connections += 1
        self.open_connections += 1
        self.changed.set()
        try:
            await self._talk(Visit(self, reader, writer))
            if not writer.transport.is_closing():
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            writer.close()
            self._visits.discard(task)
            self.open_connections -= 1
            self.changed.set()


def answering(*answers: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Answer each request with the next of ``answers``, the last of them again and again; keep the connection open."""
    left = list(answers)

    async def talk(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.send(left.pop(0) if len(left) > 1 else left[0])

    return talk


def answer(status: str = "200 OK", body: bytes = b"{}", *headers: str) -> bytes:
    """Put an answer together that says how long it is."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + END_OF_HEAD + body
