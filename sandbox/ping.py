"""Checks if a Redis server is up, without a Redis client and without a password."""

from __future__ import annotations

import socket
import ssl

_TIMEOUT_SECONDS = 1.0
# The errors mean that the server wants a password, so it is up. While it loads its data it answers -LOADING.
_READY_ANSWERS = (b"+PONG", b"-NOAUTH", b"-NOPERM")


def answers_ping(host: str, port: int, *, tls: bool) -> bool:
    """Return True if the server has loaded its data and accepts commands."""
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_SECONDS) as plain,
            _secured(plain) if tls else plain as connection,
        ):
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(_READY_ANSWERS)
    except OSError:
        return False


def _secured(connection: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a test may want a server with a bad certificate
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)
