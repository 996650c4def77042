"""Makes listening sockets of a host and a port."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Connections that the kernel queues until they are accepted; they cost no descriptor. Clients beyond it wait a second
#: before they try again, so a burst of some thousand should fit.
_BACKLOG = 4096
_NOT_AVAILABLE = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets. They are made before the start, so that a port in use stops it.

    ``::`` means every IPv4 and IPv6 address, also on hosts that lack one of the two; a name means all its addresses.

    Raises:
        OSError: no address can be used, or the port is in use on one of them.
    """
    if host == "::":
        if socket.has_dualstack_ipv6():
            return [_listening(socket.AF_INET6, ("::", port), both=True)]
        host = "0.0.0.0"  # noqa: S104 - a host without IPv6: the other half of what was asked for
    sockets: list[socket.socket] = []
    lacking: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            sockets.append(_listening(family, address))
        except OSError as error:
            if error.errno not in _NOT_AVAILABLE:
                close_all(sockets)
                raise
            lacking = error
    if not sockets:
        raise lacking or OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return sockets


def _listening(family: int, address: tuple[Any, ...], *, both: bool = False) -> socket.socket:
    listening = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    listening.settimeout(0)
    return listening


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close sockets."""
    for one in sockets:
        one.close()
