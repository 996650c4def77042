"""A service manager for tests: the socket on which systemd hears from its services."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class ServiceManager:
    """Hears what a service says. ``notify_socket`` is the value of NOTIFY_SOCKET."""

    def __init__(self, notify_socket: str) -> None:
        self.notify_socket = notify_socket
        self._lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{notify_socket[1:]}" if notify_socket.startswith("@") else notify_socket)
        self._socket.settimeout(0)

    def heard(self) -> list[str]:
        """All lines so far."""
        with suppress(BlockingIOError):
            while True:
                self._lines += self._socket.recv(4096).decode().splitlines()
        return self._lines

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()


@contextmanager
def service_manager(notify_socket: str) -> Iterator[ServiceManager]:
    """A service manager that listens until the end of the block."""
    manager = ServiceManager(notify_socket)
    try:
        yield manager
    finally:
        manager.close()
