"""Checks of how a worker and Redis prove to each other who they are: the password, and the certificates."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from worker.cli.doctor.certificate import days_if_soon
from worker.cli.doctor.check import ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from settings import Settings
    from worker.cli.doctor.check import Check


def login_checks(client: Redis, settings: Settings) -> Iterator[Check]:
    """Say what Redis accepted, and how long its own certificate is valid. It has answered before.

    Raises:
        RedisError: it does not answer any more.
    """
    if settings.REDIS_PASSWORD_FILE is not None:
        yield ok(
            "redis_password", f"Redis accepts the password in REDIS_PASSWORD_FILE ({settings.REDIS_PASSWORD_FILE})"
        )
    if settings.redis_is_tls:
        yield _certificate(_valid_until(client))
    if settings.REDIS_CERT_FILE is not None:
        yield ok("redis_client_certificate", "Redis accepts a connection with the certificate in REDIS_CERT_FILE")


def _valid_until(client: Redis) -> str:
    connection = client.connection_pool.get_connection()
    try:
        secure = connection._sock  # noqa: SLF001 - redis-py has no other way to its socket
        return str((secure.getpeercert() or {}).get("notAfter", "")) if isinstance(secure, ssl.SSLSocket) else ""
    finally:
        client.connection_pool.release(connection)


def _certificate(until: str) -> Check:
    days = days_if_soon(until)
    if days is not None:
        return warning(
            "redis_tls",
            f"The certificate of Redis is trusted, and expires in {days:.0f} days ({until}).",
            "Renew it on the server: without that no worker can connect then.",
        )
    return ok("redis_tls", "the certificate of Redis is trusted" + (f", until {until}" if until else ""))
