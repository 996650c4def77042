"""Turns REDIS_URL into redis-py's arguments, the same for every connection the worker opens."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import redis
from redis import ConnectionPool, Redis
from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, MovedError, RedisError, ResponseError
from redis.retry import Retry

from worker.broker.address_resolver import ClusterResolver, SentinelResolver
from worker.broker.client import RedisClient
from worker.broker.credentials import Credentials, named_refusal
from worker.broker.redis_problems import IS_A_CLUSTER
from worker.broker.redis_url import Topology
from worker.broker.refusals import ServerIsUnfitError, as_lost_connection, connection_is_useless

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.credentials import CredentialProvider

    from settings import Settings
    from worker.broker.address_resolver import Address, AddressResolver
    from worker.broker.backoff import ConnectBackoff

#: The timeout in seconds for connecting, and for every answer but that of a blocking command.
TIMEOUT_SECONDS = 5.0

#: Makes the kernel notice a vanished peer as fast as the timeout above does: probes on a silent connection, and a bound
#: in milliseconds on unacknowledged data. Not every system has all of these options.
_KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": int(TIMEOUT_SECONDS * 1000)}
KEEPALIVE_OPTIONS = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


class _Resolved:
    """A blocking connection that resolves its server's address, and closes when the server says that it is unusable.

    Args:
        resolver: resolves the address each time it connects; None: host and port are among the arguments.
        arguments: redis-py's.
    """

    def __init__(self, *, resolver: AddressResolver | None = None, **arguments: Any) -> None:
        self._resolver = resolver
        super().__init__(**arguments)

    def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect. redis-py calls this whether it was told to connect, or has a command to send and no connection."""
        connection: Any = self  # a connection of redis-py
        if self._resolver is not None and connection._sock is None:  # noqa: SLF001 - as redis-py's own method does
            connection.host, connection.port = self._resolver.resolve()
        super().connect_check_health(*args, **options)  # type: ignore[misc]  # redis-py's connection comes next

    def read_response(self, *args: Any, disconnect_on_error: bool = True, **options: Any) -> Any:
        """Return the next answer.

        Raises:
            UnusableServerError: the server refuses all writes or all commands, for example because it is a replica now,
                or it does not have the keys.
        """
        lost: RedisError
        try:
            return super().read_response(*args, disconnect_on_error=disconnect_on_error, **options)  # type: ignore[misc]  # as above
        except ResponseError as error:
            if not connection_is_useless(error):
                raise
            is_lone_node = isinstance(error, MovedError) and self._resolver is None
            lost = ServerIsUnfitError(IS_A_CLUSTER) if is_lone_node else as_lost_connection(error)
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


class ResolvedConnection(_Resolved, _NamesThePasswordFile, redis.Connection):
    """A blocking connection without TLS."""


class ResolvedSSLConnection(_Resolved, _NamesThePasswordFile, redis.SSLConnection):
    """A blocking connection with TLS."""


class AsyncConnection(_NamesThePasswordFileAsync, Connection):
    """A connection of the asyncio side without TLS."""


class AsyncSSLConnection(_NamesThePasswordFileAsync, SSLConnection):
    """A connection of the asyncio side with TLS."""


class _ResolvedAsync:
    """A connection of the asyncio side that resolves its server's address each time it connects."""

    def __init__(self, *, resolver: AddressResolver, **arguments: Any) -> None:
        self._resolver = resolver
        super().__init__(**arguments)

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect, as the blocking connection does."""
        connection: Any = self  # a connection of redis-py
        if not connection.is_connected:
            connection.host, connection.port = await self._resolver.resolve_async()
        await super().connect_check_health(*args, **options)  # type: ignore[misc]  # redis-py's connection comes next


class AsyncResolvedConnection(_ResolvedAsync, AsyncConnection):
    """One without TLS."""


class AsyncResolvedSSLConnection(_ResolvedAsync, AsyncSSLConnection):
    """One with TLS."""


def credentials(settings: Settings) -> Credentials | None:
    """Return the user and password in REDIS_URL, or of REDIS_PASSWORD_FILE; None if there are none."""
    url, file = settings.redis, settings.REDIS_PASSWORD_FILE
    if not (url.username or url.password or file):
        return None
    return Credentials(url.username, url.password, file)


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
    """Return redis-py's arguments for connections to the server, but for its address."""
    return {
        "db": settings.redis.database,
        "credential_provider": credentials(settings),
        **_of_any_connection(settings),
    }


def _of_any_connection(settings: Settings) -> dict[str, Any]:
    tls = tls_options(settings)
    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE_OPTIONS,
        "protocol": 2,
        "ssl": bool(tls),
        **tls,
    }


def address_resolver(settings: Settings) -> AddressResolver | None:
    """Return what resolves the server's address; None if REDIS_URL names it.

    A process needs one for all its connections: each resolver asks the sentinels in an order of its own.
    """
    url = settings.redis
    if url.topology is Topology.SENTINEL:
        password = settings.SENTINEL_PASSWORD
        own = {"password": password.get_secret_value() if password else None, **_of_any_connection(settings)}
        return SentinelResolver(url.hosts, url.master_name, own, timeout_seconds=TIMEOUT_SECONDS)
    if url.topology is Topology.CLUSTER:
        return ClusterResolver(url.hosts, settings.LOCK_QUEUE, options(settings), timeout_seconds=TIMEOUT_SECONDS)
    return None


def _address_options(settings: Settings, resolver: AddressResolver | None) -> dict[str, Any]:
    """Return the arguments for the server's address."""
    host, port = settings.redis.hosts[0]
    return {"host": host, "port": port} if resolver is None else {"resolver": resolver}


def public_url(settings: Settings) -> str:
    """Return REDIS_URL without user and password, for people."""
    return settings.redis.public


def broker_url(settings: Settings) -> str:
    """Return the URL of one server for Celery, which takes a list of hosts for servers to change between.

    Behind sentinels and on a cluster connections resolve the address, whatever this URL says.
    """
    return _url_of(settings.redis.hosts[0], settings)


def resolved_url(settings: Settings) -> str:
    """Return the URL of the server, without user and password, for clients that cannot resolve its address.

    Raises:
        RedisError: the address cannot be resolved now.
    """
    resolver = address_resolver(settings)
    return broker_url(settings) if resolver is None else _url_of(resolver.resolve(), settings)


def _url_of(address: Address, settings: Settings) -> str:
    host, port = address
    return f"redis://{f'[{host}]' if ':' in host else host}:{port}/{settings.redis.database}"


def sync_client(settings: Settings) -> Redis:
    """Return a blocking client, for the command line."""
    arguments = {**options(settings), **_address_options(settings, address_resolver(settings))}
    connection = ResolvedSSLConnection if arguments.pop("ssl") else ResolvedConnection
    pool = ConnectionPool(connection_class=connection, **arguments, retry=Retry(NoBackoff(), 0))
    return Redis.from_pool(pool)


def async_client(
    settings: Settings,
    backoff: ConnectBackoff,
    resolver: AddressResolver | None,
    *,
    on_useless: Callable[[ResponseError], None],
) -> RedisClient:
    """Return the client of the asyncio side.

    Args:
        settings: the settings.
        backoff: says when to connect.
        resolver: what :func:`address_resolver` returned.
        on_useless: see :class:`RedisClient`.
    """
    arguments = {**options(settings), **_address_options(settings, resolver)}
    if resolver is None:
        kinds: tuple[Any, Any] = AsyncConnection, AsyncSSLConnection
    else:
        kinds = AsyncResolvedConnection, AsyncResolvedSSLConnection
    connection = kinds[arguments.pop("ssl")]
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
