"""The user and password for Redis. A password in a file is read again for each connection that is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis.credentials import CredentialProvider

from worker.broker.blocking_call import BlockingCall
from worker.broker.refusals import PasswordFileError, PasswordFileRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis.exceptions import AuthenticationError


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A file with the password, such as a mounted secret that is rotated.

    Attributes:
        path: where it is.
        read: returns the password in it, or raises ``ValueError`` with what is wrong, without any of its content.
    """

    path: Path
    read: Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Credentials(CredentialProvider):
    """Gives each connection its user and password, from REDIS_URL or from a file.

    ``repr`` hides both, because Celery shows its settings on request.
    """

    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    file: PasswordFile | None = field(default=None, repr=False)
    _reading: BlockingCall[tuple[str] | tuple[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reading", BlockingCall(self.get_credentials))  # the others are never changed

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the arguments of ``AUTH``, after reading the file if there is one.

        Raises:
            PasswordFileError: the file cannot be read, or holds no password.
        """
        password = self.password or ""
        if self.file is not None:
            try:
                password = self.file.read(self.file.path)
            except ValueError as error:
                raise PasswordFileError(f"REDIS_PASSWORD_FILE: {self.file.path} {error}") from None
        return (self.username, password) if self.username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """As :meth:`get_credentials`, without blocking the loop: a network file system may hang. For one loop."""
        return self.get_credentials() if self.file is None else await self._reading.result()

    def __json__(self) -> str:
        """Return what ``inspect stats`` shows; kombu can answer only with values that have a JSON form."""
        return repr(self)


def named_refusal(provider: CredentialProvider | None, error: AuthenticationError) -> AuthenticationError:
    """Return a server's refusal to log in, with the name of the file if the password is from one."""
    if not isinstance(provider, Credentials) or provider.file is None:
        return error
    refused = PasswordFileRefusedError(f"{error} (the password is that in {provider.file.path})")
    refused.status_code = error.status_code
    return refused
