"""Reads the files by which the worker and Redis know each other: password, certificates and private key.

The settings check them at the start; each connection reads them again. No error shows what a file holds.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAX_PASSWORD_BYTES = 64 * 1024


def read_password(path: Path) -> str:
    """Return the password in a file: its one line, without the line's end.

    Raises:
        ValueError: the file cannot be read, or holds no password; the message says why, as the end of a sentence.
    """
    content = _read(path, _MAX_PASSWORD_BYTES + 1)
    if len(content) > _MAX_PASSWORD_BYTES:
        raise ValueError(f"holds no password: it is longer than {_MAX_PASSWORD_BYTES} bytes")
    try:
        password = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:  # its text shows a byte
        raise ValueError("holds no password: it is not UTF-8") from None
    if not password.strip():
        raise ValueError("is empty")
    if "\n" in password or "\r" in password:
        raise ValueError("holds no password: it has more than one line")
    return password


def check_readable(path: Path) -> None:
    """Check that a file can be read.

    Raises:
        ValueError: it cannot; the message says why, as the end of a sentence.
    """
    _read(path, 1)


def check_certificates(path: Path) -> None:
    """Check that a file holds certificates in PEM format.

    Raises:
        ValueError: it does not; the message says why, as the end of a sentence.
    """
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError("holds no certificate in PEM format") from None
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None


def check_private_key(key: Path, certificate: Path) -> None:
    """Check that a file holds the private key of a certificate, without a password.

    Raises:
        ValueError: it does not; the message says why, as the end of a sentence.
    """
    try:
        # An empty password, or OpenSSL would ask the terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("is not the key of the certificate in REDIS_CERT_FILE") from None
        raise ValueError("holds no private key in PEM format, or one that is encrypted with a password") from None
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None


def _read(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError | ValueError) -> ValueError:
    return ValueError(f"cannot be read ({type(error).__name__})")
