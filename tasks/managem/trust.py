"""Provides the certificate authorities that the API is verified against; reads them again when their file changes.

They are the ones that httpx trusts: the ones in ``SSL_CERT_FILE``, else those in ``SSL_CERT_DIR``, else certifi's. An
authority is renewed by adding the new one to the file before the host uses a certificate of it. A process that reads
the file only once would lose the API then.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import httpx

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

_Version: TypeAlias = "tuple[tuple[int, int, int] | None, ...]"

_ADVICE = (
    "New connections are verified against the authorities that were read last. Fix the file; no restart is needed."
)

logger = logging.getLogger(__name__)


class Trust:
    """Provides the TLS context of new connections.

    While the file is missing or holds no certificates, the last ones stay in use.

    Raises:
        OSError: at the start the file cannot be read, or holds no certificate.
    """

    def __init__(self) -> None:
        self._paths = _paths()
        self._version: _Version | None = _version(self._paths)
        self._was_usable = True
        self._context = _read()

    def context(self) -> ssl.SSLContext:
        """Return the TLS context, after reading the file if it has changed."""
        version = _version(self._paths)
        if version != self._version:
            self._renew(version)
        return self._context

    def _renew(self, version: _Version) -> None:
        file = os.pathsep.join(map(str, self._paths))
        try:
            if not any(version):
                raise FileNotFoundError
            self._context = _read()
        except OSError as error:  # ssl.SSLError too: the file has no certificate
            if self._was_usable:  # logged once, not at every connection
                extra = {"file": file, "error": type(error).__name__, "advice": _ADVICE}
                logger.warning("authorities_unusable", extra=extra)
            self._version, self._was_usable = None, False
        else:
            self._version, self._was_usable = version, True
            logger.info("authorities_read", extra={"file": file})


def _paths() -> Sequence[Path]:
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        return [Path(file)]
    return [Path(folder) for folder in folders.split(os.pathsep)] if folders else []


def _version(paths: Sequence[Path]) -> _Version:
    """Return a value that changes when a file, or the listing of a folder, changes."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
