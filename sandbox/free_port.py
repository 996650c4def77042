"""Finds a port for a server that will be stopped and started again on it."""

from __future__ import annotations

import random
import socket

# Below the ports that systems give to outgoing connections. Otherwise a client that retries while the server is down
# could get the server's port as its local one, connect to itself, and keep the server out.
_PORTS = range(10_000, 32_000)


def free_port(host: str) -> int:
    """Return a port that is free now; another process may take it before it is used."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
