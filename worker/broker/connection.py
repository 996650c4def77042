"""How to reach Redis: REDIS_URL as redis-py's arguments, the same for every connection the worker opens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.broker.link import Link

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


def link(settings: Settings) -> Link:
    """The asyncio side's way to Redis."""
    arguments = options(settings)
    connection = SSLConnection if arguments.pop("ssl") else Connection
    # One time-out is kept over the whole command, and a connection that is none is made anew by the next one.
    arguments["socket_timeout"] = None
    return Link(lambda: connection(**arguments, retry=AsyncRetry(NoBackoff(), 0)), timeout_seconds=TIMEOUT_SECONDS)
