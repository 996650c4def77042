"""Checks of the way to the API: name, connection, TLS as the worker verifies it. No call is made."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, TypeAlias

import httpx

from tasks.managem.trust import Trust
from worker.cli.doctor.certificate import days_if_soon
from worker.cli.doctor.check import ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settings import Settings
    from worker.cli.doctor.check import Check

_TIMEOUT_SECONDS = 5.0
_LOOPBACK = ("127.", "::1")

Address: TypeAlias = "tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]"


def api_checks(settings: Settings) -> Iterator[Check]:
    """Yield what was found, up to the first step that fails."""
    yield from token(settings)
    try:
        url = httpx.URL(settings.API_URL)
    except httpx.InvalidURL:
        return  # a problem of the settings, which is told there
    host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield problem(
            "api_name", f"The name of the API, {host}, is not resolved: {_words(error)}.", "Check API_URL, and the DNS."
        )
        return
    addresses: list[Address] = [(family, address) for family, _, _, _, address in found]
    yield ok("api_name", f"{host} is {', '.join(dict.fromkeys(str(address[0]) for _, address in addresses))}")
    connection, refusals = connect(addresses)
    if connection is None:
        yield problem(
            "api_connection",
            f"No connection to the API at {host} port {port}: {'; '.join(refusals)}.",
            "Check API_URL, and the firewalls and egress rules between here and there.",
        )
        return
    with connection:
        yield ok("api_connection", f"port {port} of {host} takes connections")
        yield from tls(connection, host) if url.scheme == "https" else plain(connection, host)


def token(settings: Settings) -> Iterator[Check]:
    """Say where the token comes from; that it can be read was checked with the settings."""
    if settings.API_TOKEN is None and settings.API_TOKEN_FILE is None:
        return  # a problem of the settings, which is told there
    where = "API_TOKEN" if settings.API_TOKEN is not None else f"API_TOKEN_FILE ({settings.API_TOKEN_FILE})"
    yield ok("api_token", f"{where} holds a token; it was not tried, because each call locks a conversation")


def connect(addresses: list[Address]) -> tuple[socket.socket | None, list[str]]:
    """Return a connection to the first address that takes one, and why others did not."""
    refusals = []
    for family, address in addresses:
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT_SECONDS)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            refusals.append(f"{address[0]!s}: {_words(error)}")
        else:
            return connection, refusals
    return None, list(dict.fromkeys(refusals))


def tls(connection: socket.socket, host: str) -> Iterator[Check]:
    """Check the certificate against the authorities that a worker trusts."""
    try:
        with Trust().context().wrap_socket(connection, server_hostname=host) as secure:
            certificate = secure.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        yield problem(
            "api_tls",
            f"TLS: the certificate of {host} is not trusted: {error.verify_message}.",
            "If an authority of your own signed it, let SSL_CERT_FILE name its certificate; else check API_URL.",
        )
    except OSError as error:
        yield problem("api_tls", f"TLS with {host} failed: {_words(error)}.", "Check whether this port speaks TLS.")
    else:
        yield _expiry(host, str(certificate.get("notAfter", "")))


def _expiry(host: str, until: str) -> Check:
    days = days_if_soon(until)
    if days is not None:
        return warning(
            "api_tls",
            f"TLS: the certificate of {host} is trusted, and expires in {days:.0f} days ({until}).",
            "Ask the API's people to renew it: without that all calls fail then.",
        )
    return ok("api_tls", f"the certificate of {host} is trusted" + (f", until {until}" if until else ""))


def plain(connection: socket.socket, host: str) -> Iterator[Check]:
    """Warn of a token that travels unencrypted."""
    if not str(connection.getpeername()[0]).startswith(_LOOPBACK):
        yield warning(
            "api_tls",
            f"The token travels to {host} unencrypted (http).",
            "Use https, unless nobody else is on this way.",
        )


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_SECONDS:g} s"
    return error.strerror or type(error).__name__
