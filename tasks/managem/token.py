"""Provides the API's bearer token: a fixed one, or one in a file that is read again when it changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import SecretStr

logger = logging.getLogger(__name__)

_ADVICE = (
    "Calls go on with the last token. Put the token alone into the file that API_TOKEN_FILE names, readable for the "
    "worker's user; it is read again without a restart."
)


class TokenFile:
    """A token in a file, such as a mounted secret.

    While the file is missing, empty or invalid, the last token stays in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._was_usable = True
        self._token = ""

    def __call__(self) -> str:
        """Return the token, after reading the file if it has changed."""
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._seen:
                self._token = _usable(self._path.read_text("utf-8").strip())
                self._seen = version
                if not self._was_usable:
                    logger.info("token_file_usable", extra={"path": str(self._path)})
                self._was_usable = True
        except (OSError, ValueError) as error:
            if self._was_usable:  # logged once, not at every call
                fields = {"path": str(self._path), "problem": _problem(error), "advice": _ADVICE}
                logger.warning("token_file_unusable", extra=fields)
            self._seen, self._was_usable = None, False
        return self._token


def is_visible_ascii(token: str) -> bool:
    """Return True if a header can carry a token as one word."""
    return token.isascii() and token.isprintable() and " " not in token


def _usable(token: str) -> str:
    if not token:
        raise ValueError("is empty")
    if not is_visible_ascii(token):
        raise ValueError("holds more than visible ASCII characters without blanks")
    return token


def _problem(error: OSError | ValueError) -> str:
    """Return what is wrong with the file, without its contents."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or type(error).__name__}"
    if isinstance(error, UnicodeDecodeError):  # its text shows a byte
        return "is not UTF-8"
    return str(error)


def token_source(token: SecretStr | None, path: Path | None) -> Callable[[], str]:
    """Return the function that gives each call its token."""
    if token is not None:
        return token.get_secret_value
    if path is not None:
        return TokenFile(path)
    raise ValueError("there is neither a token nor a file that holds one")
