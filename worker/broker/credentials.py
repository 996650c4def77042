"""The user and password for Redis. A password in a file is read again for each connection that is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis.credentials import CredentialProvider

from worker.broker.blocking_call import BlockingCall
from worker.broker.credential_files import read_password
from worker.broker.refusals import PasswordFileError, PasswordFileRefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from redis.exceptions import AuthenticationError


@dataclass(frozen=True, slots=True)
class Credentials(CredentialProvider):
    """Gives each connection its user and password. ``repr`` hides both, because Celery shows its settings on request.

    Attributes:
        username: the user in REDIS_URL.
        password: the password in REDIS_URL.
        file: a file that holds the password instead, such as a mounted secret that is rotated.
    """

    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    file: Path | None = field(default=None, repr=False)
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
                password = read_password(self.file)
            except ValueError as error:
                raise PasswordFileError(f"REDIS_PASSWORD_FILE: {self.file} {error}") from None
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
    refused = PasswordFileRefusedError(f"{error} (the password is that in {provider.file})")
    refused.status_code = error.status_code
    return refused
