"""Turns REDIS_URL into redis-py's arguments, the same for every connection the worker opens."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import redis
from redis import ConnectionPool, Redis
from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from worker.broker.client import RedisClient
from worker.broker.refusals import as_lost_connection, connection_is_useless

if TYPE_CHECKING:
    from collections.abc import Callable

    from settings import Settings
    from worker.broker.backoff import ConnectBackoff

#: The timeout in seconds for connecting, and for every answer but that of a blocking command.
TIMEOUT_SECONDS = 5.0

#: Makes the kernel notice a vanished peer as fast as the timeout above does: probes on a silent connection, and a bound
#: in milliseconds on unacknowledged data. Not every system has all of these options.
_KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": int(TIMEOUT_SECONDS * 1000)}
KEEPALIVE_OPTIONS = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


class _ClosesWhenUnusable:
    """A blocking connection that closes when its server says that it is unusable."""

    def read_response(self, *args: Any, disconnect_on_error: bool = True, **options: Any) -> Any:
        """Return the next answer.

        Raises:
            UnusableServerError: the server refuses all writes or all commands, for example because it is a replica now.
        """
        try:
            # redis-py's connection comes next
            return super().read_response(*args, disconnect_on_error=disconnect_on_error, **options)  # type: ignore[misc]
        except ResponseError as error:
            if not connection_is_useless(error):
                raise
            lost = as_lost_connection(error)
        if disconnect_on_error:  # else the caller reads more answers, each a refusal of its own
            self.disconnect()  # type: ignore[attr-defined]  # as above
        raise lost


class PrimaryConnection(_ClosesWhenUnusable, redis.Connection):
    """A blocking connection without TLS."""


class PrimarySSLConnection(_ClosesWhenUnusable, redis.SSLConnection):
    """A blocking connection with TLS."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user and password for Redis. ``repr`` hides both, because Celery shows its settings on request."""

    username: str | None = field(repr=False)
    password: str | None = field(repr=False)

    def __json__(self) -> str:
        """Return what ``inspect stats`` shows; kombu can answer only with values that have a JSON form."""
        return repr(self)


def credentials(settings: Settings) -> Credentials:
    """Return the user and password in REDIS_URL."""
    parts = urlsplit(settings.REDIS_URL.get_secret_value())
    return Credentials(
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def tls_options(settings: Settings) -> dict[str, Any]:
    """Return redis-py's arguments for TLS; empty without TLS. Certificate and host name are verified."""
    if not settings.redis_is_tls:
        return {}
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": None if settings.REDIS_CA_FILE is None else str(settings.REDIS_CA_FILE),
    }


def options(settings: Settings) -> dict[str, Any]:
    """Return redis-py's arguments for REDIS_URL."""
    parts = urlsplit(settings.REDIS_URL.get_secret_value())
    user = credentials(settings)
    tls = tls_options(settings)
    return {
        "host": parts.hostname,
        "port": parts.port or 6379,
        "db": int(parts.path.strip("/") or 0),
        "username": user.username,
        "password": user.password,
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE_OPTIONS,
        "protocol": 2,
        "ssl": bool(tls),
        **tls,
    }


def public_url(settings: Settings) -> str:
    """Return REDIS_URL without user and password, for logs and for Celery's banner."""
    arguments = options(settings)
    host = f"[{arguments['host']}]" if ":" in arguments["host"] else arguments["host"]
    return f"redis://{host}:{arguments['port']}/{arguments['db']}"


def sync_client(settings: Settings) -> Redis:
    """Return a blocking client, for the command line."""
    arguments = options(settings)
    connection = PrimarySSLConnection if arguments.pop("ssl") else PrimaryConnection
    pool = ConnectionPool(connection_class=connection, **arguments, retry=Retry(NoBackoff(), 0))
    return Redis.from_pool(pool)


def async_client(
    settings: Settings, backoff: ConnectBackoff, *, on_useless: Callable[[ResponseError], None]
) -> RedisClient:
    """Return the client of the asyncio side; see :class:`RedisClient` for ``on_useless``."""
    arguments = options(settings)
    connection = SSLConnection if arguments.pop("ssl") else Connection
    # The client applies one timeout to the whole command, so redis-py's own one is off. With that, redis-py would send
    # through `asyncio.wait_for`, which on Python 3.11 loses a cancellation that arrives just as it finishes. The worker
    # would then go on with its next command instead of stopping.
    arguments["socket_timeout"] = None
    return RedisClient(
        lambda: connection(**arguments, retry=AsyncRetry(NoBackoff(), 0)),
        timeout_seconds=TIMEOUT_SECONDS,
        backoff=backoff,
        on_useless=on_useless,
    )
