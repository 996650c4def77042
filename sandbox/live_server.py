"""Asks a running server of the sandbox something, and waits for what servers do by themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from sandbox.redis_server import RedisServer, RedisServerError

if TYPE_CHECKING:
    from collections.abc import Callable

_SOCKET_SECONDS = 1.0
_POLL_SECONDS = 0.02


def ask(server: RedisServer, name: str, *arguments: str | bytes | int, decode: bool = True) -> Any:
    """Send a server a command, on a connection of its own, and return the answer, as text unless ``decode`` is False.

    Raises:
        RedisError, OSError: the server refused, or cannot be reached.
    """
    client = redis.Redis.from_url(
        server.url, retry=Retry(NoBackoff(), 0), decode_responses=decode, protocol=2,
        socket_timeout=_SOCKET_SECONDS, socket_connect_timeout=_SOCKET_SECONDS,
    )  # fmt: skip
    with client:
        return client.execute_command(*name.split(), *arguments)  # type: ignore[no-untyped-call]


def is_linked(replica: RedisServer) -> bool:
    """Return True while a replica follows its primary and has all its data."""
    return bool(ask(replica, "INFO", "replication").get("master_link_status") == "up")


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until the condition holds. A server that refuses or cannot be asked does not meet it yet.

    Raises:
        RedisServerError: it did not hold in time; the message says ``what`` was waited for, and the last error.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while True:
        try:
            if condition():
                return
        except (RedisError, OSError, RedisServerError) as error:
            last = error
        if time.monotonic() > deadline:
            raise RedisServerError(f"waited {seconds:g} s in vain for {what}" + (f": {last}" if last else ""))
        time.sleep(_POLL_SECONDS)
