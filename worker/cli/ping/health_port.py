"""Asks the health port of this pod. It imports as little as it can: a container runs it every few seconds.

So it reads the two settings that it needs itself, with the same defaults as ``settings.py``; a test compares them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from dataclasses import dataclass

DEFAULT_HOST, DEFAULT_PORT = "::", 8080
#: The time that everything may take: a little more than a worker needs to say that its loop stands still.
TIMEOUT_SECONDS = 6.0
_MAX_PORT = 65_535
_MAX_ANSWER_BYTES = 64 * 1024
_OK = 200


class PingError(Exception):
    """There is no good answer; the text is one line for people."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a pod answered.

    Attributes:
        asked: what was asked, for people: a URL, or Redis.
        status: the HTTP status; None: Redis was asked.
        body: what came with it; a JSON object where the worker itself answered.
    """

    asked: str
    status: int | None = None
    body: bytes = b""

    @property
    def is_good(self) -> bool:
        """True if the worker is as was asked for."""
        return self.status in {None, _OK}


def health_port() -> int:
    """Return HEALTH_PORT; 0: the pod has no health port.

    Raises:
        PingError: it is no port.
    """
    text = os.environ.get("HEALTH_PORT") or str(DEFAULT_PORT)
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= _MAX_PORT:
        raise PingError(f"HEALTH_PORT: must be a whole number from 0 to {_MAX_PORT}")
    return port


def ask(port: int, path: str) -> Answer:
    """Ask the health port of this pod.

    Raises:
        PingError: nothing listens there, it does not answer in time, or it does not speak HTTP.
    """
    until = time.monotonic() + TIMEOUT_SECONDS
    failed = ""
    for host in _addresses(os.environ.get("HEALTH_HOST") or DEFAULT_HOST):
        asked = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
        try:
            with socket.create_connection((host, port), timeout=_left(until)) as connection:
                return _answer(asked, _exchange(connection, host, path, until))
        except (OSError, ValueError) as error:
            failed = failed or f"{asked}: {_words(error)}"  # what the first address says counts
    raise PingError(failed)


def _addresses(host: str) -> list[str]:
    """Return where to find what listens on HEALTH_HOST: at loopback, if that is a wildcard."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [host]
    if not address.is_unspecified:
        return [host]
    return ["127.0.0.1", "::1"] if isinstance(address, ipaddress.IPv6Address) else ["127.0.0.1"]


def _exchange(connection: socket.socket, host: str, path: str, until: float) -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1", "replace"))
    answer = b""
    while len(answer) < _MAX_ANSWER_BYTES:
        connection.settimeout(_left(until))
        part = connection.recv(_MAX_ANSWER_BYTES)
        if not part:
            break
        answer += part
    return answer


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _answer(asked: str, answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():  # noqa: PLR2004 - version and status
        raise ValueError("something answers that does not speak HTTP")
    return Answer(asked, int(words[1]), body)


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
