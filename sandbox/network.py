"""A network between the sandbox's servers and their clients that can be cut, and healed.

Each line leads from a port of its own to a server's. What comes over a line that is cut waits: nobody learns of it,
neither by an answer nor by an end of the connection. When the line is healed it all arrives, late. A connection that
is opened meanwhile gets no answer either.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from sandbox.redis_server import HOST
from sandbox.started import Started

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

#: Servers connect from this address, so that a line can tell them from clients. On Linux all of 127.0.0.0/8 is this
#: machine; elsewhere the address must be added to the loopback interface.
SERVERS_HOST = "127.0.0.2"
_PIECE_BYTES = 65_536


class Line:
    """Leads to one server.

    Attributes:
        port: where the line begins.
        server_port: where it leads; set before the first connection.
    """

    def __init__(self, network: Network) -> None:
        self.port = 0
        self.server_port = 0
        self._network = network
        #: By whether a server has connected.
        self._carries = {is_server: asyncio.Event() for is_server in (False, True)}
        for carries in self._carries.values():
            carries.set()

    def cut(self, *, for_clients: bool) -> None:
        """Carry nothing more for other servers, and perhaps for clients."""
        self._network.soon(self._carries[True].clear)
        if for_clients:
            self._network.soon(self._carries[False].clear)

    def heal(self) -> None:
        """Carry everything again."""
        for carries in self._carries.values():
            self._network.soon(carries.set)

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection to the server, and its answers back."""
        carries = self._carries[writer.get_extra_info("peername")[0] == SERVERS_HOST]
        await carries.wait()
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(HOST, self.server_port)
            try:
                await asyncio.gather(_carry(reader, server_writer, carries), _carry(server_reader, writer, carries))
            finally:
                server_writer.close()
        writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carries: asyncio.Event) -> None:
    try:
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await carries.wait()
                writer.write(piece)
                await writer.drain()
        await carries.wait()  # the end of the connection comes no earlier than what was sent before
    finally:
        writer.close()


class Network(Started):
    """Lines to servers, from ``start`` (or ``with``) to ``close``. The lines are carried in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox-network", daemon=True)
        self._listening: list[asyncio.Server] = []

    def start(self) -> None:
        """Be ready for lines."""
        self._thread.start()

    def close(self) -> None:
        """End all lines with their connections."""
        if self._thread.is_alive():
            self._do(self._end())
            self.soon(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def line(self) -> Line:
        """Return a new line; where it leads is still to be said."""
        line = Line(self)
        line.port = self._do(self._listen(line))
        return line

    def soon(self, act: Callable[[], object]) -> None:
        """Do it in the thread that carries."""
        self._loop.call_soon_threadsafe(act)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self, line: Line) -> int:
        server = await asyncio.start_server(line.lead, HOST, 0)
        self._listening.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        for server in self._listening:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
