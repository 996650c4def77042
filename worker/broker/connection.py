"""How to reach Redis: REDIS_URL as redis-py's arguments, the same for every connection the worker opens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import hiredis
from redis import Redis
from redis.asyncio import Connection, SSLConnection
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from settings import Settings

#: Seconds that connecting, or any answer but that of a blocking wait, may take.
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to Redis. Its ``repr`` tells nothing, because Celery shows its settings on request."""

    username: str | None = field(repr=False)
    password: str | None = field(repr=False)

    def __json__(self) -> str:
        """What ``inspect stats`` shows of it: kombu cannot answer with what it cannot turn into JSON."""
        return repr(self)


def credentials(settings: Settings) -> Credentials:
    """The user and password in REDIS_URL."""
    parts = urlsplit(settings.REDIS_URL.get_secret_value())
    return Credentials(
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def tls_options(settings: Settings) -> dict[str, Any]:
    """TLS as redis-py's arguments; empty without TLS. Certificate and host name are verified."""
    if not settings.redis_is_tls:
        return {}
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": None if settings.REDIS_CA_FILE is None else str(settings.REDIS_CA_FILE),
    }


def options(settings: Settings) -> dict[str, Any]:
    """REDIS_URL as redis-py's arguments."""
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
        "protocol": 2,
        "ssl": bool(tls),
        **tls,
    }


def public_url(settings: Settings) -> str:
    """REDIS_URL without user and password, for logs and for Celery's banner."""
    found = options(settings)
    host = f"[{found['host']}]" if ":" in found["host"] else found["host"]
    return f"redis://{host}:{found['port']}/{found['db']}"


def sync_client(settings: Settings) -> Redis:
    """A blocking client, for the command line."""
    return Redis(**options(settings), retry=Retry(NoBackoff(), 0))


def async_client(settings: Settings) -> AsyncRedis:
    """A client for the worker's asyncio side.

    It never repeats a command by itself: its callers know which may be repeated.
    """
    client = AsyncRedis(**options(settings), retry=AsyncRetry(NoBackoff(), 0))
    client.connection_pool.connection_class = _PackedTls if settings.redis_is_tls else _Packed
    return client


class _Packs:
    """Writes commands with hiredis, as redis-py's blocking connections do; its asyncio ones do so in Python."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        return [hiredis.pack_command((*name.split(), *rest))]  # redis-py writes CLIENT UNBLOCK as one word


class _Packed(_Packs, Connection):
    pass


class _PackedTls(_Packs, SSLConnection):
    pass
