"""Turns REDIS_URL into redis-py's arguments, the same for every connection the worker opens."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import redis
from redis import ConnectionPool, Redis
from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry

from settings import read_password
from worker.broker.client import RedisClient
from worker.broker.credentials import Credentials, PasswordFile, named_refusal
from worker.broker.refusals import as_lost_connection, connection_is_useless

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.credentials import CredentialProvider

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


class _NamesThePasswordFile:
    """A blocking connection whose login, when the server refuses it, says from which file the password was."""

    credential_provider: CredentialProvider | None

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Log in.

        Raises:
            PasswordFileRefusedError: the server refused the password in REDIS_PASSWORD_FILE.
        """
        try:
            super().on_connect_check_health(check_health)  # type: ignore[misc]  # redis-py's connection comes next
        except AuthenticationError as error:
            raise named_refusal(self.credential_provider, error) from error.__cause__


class _NamesThePasswordFileAsync:
    """As :class:`_NamesThePasswordFile`, for asyncio."""

    credential_provider: CredentialProvider | None

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - as above
        """As :meth:`_NamesThePasswordFile.on_connect_check_health`."""
        try:
            await super().on_connect_check_health(check_health)  # type: ignore[misc]  # as above
        except AuthenticationError as error:
            raise named_refusal(self.credential_provider, error) from error.__cause__


class PrimaryConnection(_ClosesWhenUnusable, _NamesThePasswordFile, redis.Connection):
    """A blocking connection without TLS."""


class PrimarySSLConnection(_ClosesWhenUnusable, _NamesThePasswordFile, redis.SSLConnection):
    """A blocking connection with TLS."""


class AsyncConnection(_NamesThePasswordFileAsync, Connection):
    """A connection of the asyncio side without TLS."""


class AsyncSSLConnection(_NamesThePasswordFileAsync, SSLConnection):
    """A connection of the asyncio side with TLS."""


def credentials(settings: Settings) -> Credentials | None:
    """Return the user and password in REDIS_URL, or of REDIS_PASSWORD_FILE; None if there are none."""
    parts = urlsplit(settings.REDIS_URL.get_secret_value())
    file = settings.REDIS_PASSWORD_FILE
    if not (parts.username or parts.password or file):
        return None
    return Credentials(
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        file=None if file is None else PasswordFile(file, read_password),
    )


def tls_options(settings: Settings) -> dict[str, Any]:
    """Return redis-py's arguments for TLS; empty without TLS. Certificate and host name are verified.

    redis-py reads the files again for each connection, so that all of them can be replaced.
    """
    if not settings.redis_is_tls:
        return {}
    files = {
        "ssl_ca_certs": settings.REDIS_CA_FILE,
        "ssl_certfile": settings.REDIS_CERT_FILE,
        "ssl_keyfile": settings.REDIS_KEY_FILE,
    }
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        **{name: str(path) for name, path in files.items() if path is not None},
        "ssl_password": "",  # else OpenSSL asks the terminal for that of a key that is encrypted by now
    }


def options(settings: Settings) -> dict[str, Any]:
    """Return redis-py's arguments for REDIS_URL."""
    parts = urlsplit(settings.REDIS_URL.get_secret_value())
    tls = tls_options(settings)
    return {
        "host": parts.hostname,
        "port": parts.port or 6379,
        "db": int(parts.path.strip("/") or 0),
        "credential_provider": credentials(settings),
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
    connection = AsyncSSLConnection if arguments.pop("ssl") else AsyncConnection
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
