"""The API's bearer token: given once, or kept in a file that is read again when it changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import SecretStr

logger = logging.getLogger(__name__)


class TokenFile:
    """A token in a file, such as a mounted secret.

    While the file is missing, empty, or holds what no header can carry, the last token stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._was_usable = True
        self._token = ""

    def __call__(self) -> str:
        """The token; looks whether the file has changed."""
        try:
            found = self._path.stat()
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if version != self._seen:
                self._token = _usable(self._path.read_text("utf-8").strip())
                self._seen, self._was_usable = version, True
        except (OSError, ValueError) as error:
            if self._was_usable:  # said once, not at every call
                logger.warning("token_file_unusable", extra={"error": type(error).__name__})
            self._seen, self._was_usable = None, False
        return self._token


def _usable(token: str) -> str:
    if not token or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("must be visible ASCII characters without blanks")
    return token


def token_source(token: SecretStr | None, path: Path | None) -> Callable[[], str]:
    """Where each call's token comes from."""
    if token is not None:
        return token.get_secret_value
    if path is not None:
        return TokenFile(path)
    raise ValueError("there is neither a token nor a file that holds one")
