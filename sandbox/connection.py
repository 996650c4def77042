"""One client's connection: reads requests in order and plays the steps of each answer.

It uses ``asyncio.Protocol`` without a task for each request. That gives the control over every byte, FIN and RST that
faults need (which HTTP servers hide), and is cheap enough for the server to be used in benchmarks.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Protocol

from sandbox.http_request import BadRequestError, take_request
from sandbox.wire import End, Wait, ending, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.call_log import Call
    from sandbox.faults import Drop
    from sandbox.http_request import Request
    from sandbox.upstream import Reply
    from sandbox.wire import Step

_LINGER_ZERO = struct.pack("ii", 1, 0)  # close() then sends a RST


class Service(Protocol):
    """Decides for a connection if it is dropped, and how each request is answered."""

    def opened(self, connection: Connection) -> Drop | None:
        """Return how the connection is to be dropped at once, or None."""

    def serve(self, request: Request) -> Reply:
        """Return the answer to a request."""

    def ended(self, call: Call, *, complete: bool) -> None:
        """Note that an answer is over: complete, or given up because the client left."""

    def closed(self, connection: Connection) -> None:
        """Note that the connection is closed."""


class Connection(asyncio.Protocol):
    """One client's connection. ``closed`` is done once its socket is closed."""

    def __init__(self, service: Service) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._service = service
        self._buffer = bytearray()
        self._steps: Iterator[Step] | None = None
        self._call: Call | None = None
        self._keep_alive = True
        self._timer: asyncio.TimerHandle | None = None
        self._writable = True

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - asyncio's own
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio types it too widely
        self._transport = transport
        drop = self._service.opened(self)
        if drop is not None:
            self._end(ending(drop))

    def data_received(self, data: bytes) -> None:  # noqa: D102 - asyncio's own
        self._buffer += data
        if self._steps is None:
            self._go_on()

    def pause_writing(self) -> None:  # noqa: D102 - asyncio's own
        self._writable = False

    def resume_writing(self) -> None:  # noqa: D102 - asyncio's own
        self._writable = True
        if self._steps is not None and self._timer is None:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102 - asyncio's own
        if self._timer is not None:
            self._timer.cancel()
        self._finish(complete=False)
        self._service.closed(self)
        self.closed.set_result(None)

    def _go_on(self) -> None:
        """Take requests and play their answers until there is something to wait for."""
        while not self._transport.is_closing():
            if self._steps is None and not self._next_request():
                return
            if not self._play():
                return
            self._finish(complete=True)
            if not self._keep_alive:
                self._end(End.CLOSE)

    def _next_request(self) -> bool:
        try:
            request = take_request(self._buffer)
        except BadRequestError as error:
            self._transport.write(message(error.status, str(error), headers={"Connection": "close"}))
            self._end(End.CLOSE)
            return False
        if request is None:
            return False
        reply = self._service.serve(request)
        self._steps = iter(reply.steps)
        self._call = reply.call
        self._keep_alive = request.keep_alive
        return True

    def _play(self) -> bool:
        """Play steps until there are none (True), or until one has to be waited for or ended the connection (False)."""
        assert self._steps is not None  # noqa: S101 - only called with an answer under way
        for step in self._steps:
            if isinstance(step, bytes):
                self._transport.write(step)
                if not self._writable:
                    return False
            elif isinstance(step, Wait):
                self._timer = asyncio.get_running_loop().call_later(step.seconds, self._timer_rang)
                return False
            else:
                self._finish(complete=True)
                self._end(step)
                return False
        return True

    def _timer_rang(self) -> None:
        self._timer = None
        self._go_on()

    def _finish(self, *, complete: bool) -> None:
        self._steps = None
        if self._call is not None:
            self._service.ended(self._call, complete=complete)
            self._call = None

    def _end(self, end: End) -> None:
        if end is End.RESET:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            self._transport.abort()
        else:
            self._transport.close()
