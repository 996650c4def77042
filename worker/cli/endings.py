"""How a command ends that cannot go on: one message on standard error, no traceback, a status that scripts can tell."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from settings import Settings

#: It could not be done: Redis is away, a job is not valid, something did not add up.
FAILED = 1
#: It was asked for in the wrong way: settings or options.
WRONG_USE = 2
#: Ctrl-C, as shells tell it.
INTERRUPTED = 130


def stop(message: str, status: int = FAILED) -> NoReturn:
    """End the command."""
    typer.echo(f"lock-worker: {message}", err=True)
    raise typer.Exit(status)


def check_known(option: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    """A value of an option that is none of the known ones ends the command, with all of them."""
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise typer.BadParameter(f"{option} {unknown[0]}: there are {', '.join(known)}")


def load_settings(*, need_token: bool = False) -> Settings:
    """The settings; wrong ones end the command with the one message that names every problem."""
    import settings  # noqa: PLC0415 - slow to import, and --help is quick

    try:
        return settings.load(need_token=need_token)
    except settings.SettingsError as error:
        stop(str(error), WRONG_USE)


@contextmanager
def cut_short(account: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C, SIGTERM, or a reader of the output who is gone, ends the command with an account of what was done."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        stop(f"standard output was closed\n{account()}", FAILED)
    except KeyboardInterrupt:
        stop(f"interrupted\n{account()}", INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def redis_or_stop(found: Settings) -> Iterator[None]:
    """Trouble with Redis inside ends the command: what the server refused, or that it cannot be reached."""
    from redis.exceptions import RedisError  # noqa: PLC0415 - slow to import, and --help is quick

    from worker.cli.refusals import described  # noqa: PLC0415 - as above

    try:
        yield
    except RedisError as error:
        stop(f"Redis at {place(found)}{described(error)}")


def place(found: Settings) -> str:
    """Where Redis is, for people: host, port and database, and nothing secret."""
    from worker.broker.connection import public_url  # noqa: PLC0415 - slow to import, and --help is quick

    return public_url(found).partition("://")[2]
