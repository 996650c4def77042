"""A network between a worker and its Redis that can lose connections without a word, and lead to another server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from sandbox.redis_server import HOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_PIECE_BYTES = 65536


class LossyNetwork:
    """Leads from a port of its own, ``port``, to a server's; from ``with`` on."""

    def __init__(self, server_port: int) -> None:
        self._listening = socket.create_server((HOST, 0))
        self.port = int(self._listening.getsockname()[1])
        self._server_port = server_port
        self._forwards = True
        self._loses_answer_to: bytes | None = None
        self._lost = threading.Event()
        #: Connections so far.
        self.accepted = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._in_a_thread(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listening, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
        for thread in self._threads:
            thread.join()
        for each in (self._listening, *self._sockets):
            each.close()

    def lose_connections(self) -> None:
        """From now on nothing comes through on the connections that are open, not even their end; new ones are good."""
        self._lost.set()
        self._lost = threading.Event()

    def lose_the_answer_to(self, words: bytes) -> None:
        """The first connection on which these words are sent is lost then; the words still come through."""
        self._loses_answer_to = words

    def lead_to(self, server_port: int) -> None:
        """From now on new connections lead to this server; those that are open stay where they are."""
        self._server_port = server_port

    def stop_forwarding(self) -> None:
        """From now on nothing comes through, also not on new connections, until :meth:`forward_again`."""
        self.lose_connections()
        self._forwards = False

    def forward_again(self) -> None:
        """New connections are good again. Those that are open stay lost."""
        self.lose_connections()
        self._forwards = True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.accepted += 1
                if not self._forwards:
                    self._sockets.append(client)
                    continue
                server = socket.create_connection((HOST, self._server_port))
                self._sockets += [client, server]
                answers_lost = threading.Event()
                self._in_a_thread(self._carry, client, server, [self._lost], answers_lost)
                self._in_a_thread(self._carry, server, client, [self._lost, answers_lost], threading.Event())

    def _in_a_thread(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _carry(
        self, source: socket.socket, target: socket.socket, lost: list[threading.Event], loses_answers: threading.Event
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                if self._loses_answer_to is not None and self._loses_answer_to in piece:
                    self._loses_answer_to = None
                    loses_answers.set()
                if not any(each.is_set() for each in lost):
                    target.sendall(piece)
        if not any(each.is_set() for each in lost):
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)
