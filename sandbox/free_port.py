"""A port for a server that will be stopped and come back to it."""

from __future__ import annotations

import random
import socket

# Below the ports that systems give to outgoing connections. A client that keeps trying a server which is down for a
# moment could otherwise be given the server's own port as its local one, connect to itself, and keep the server out.
_PORTS = range(10_000, 32_000)


def free_port(host: str) -> int:
    """Return a port that nobody listens on just now; somebody may by the time it is used."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
