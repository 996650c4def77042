"""How a command ends that cannot go on: one message on standard error, no traceback, a status that scripts can tell."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

import typer

from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from settings import Settings

#: It could not be done: Redis is away, a job is not valid, something did not add up.
FAILED = 1
#: It was asked for in the wrong way: settings or options.
USAGE_ERROR = 2
#: Ctrl-C, as shells tell it.
INTERRUPTED = 130


def fail(message: str, status: int = FAILED) -> NoReturn:
    """End the command."""
    shown = "\n".join(map(printable, message.split("\n")))  # it may quote arguments and settings
    typer.echo(f"lock-worker: {shown}", err=True)
    raise typer.Exit(status)


def require_known(option: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    """A value of an option that is none of the known ones ends the command, with all of them."""
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise typer.BadParameter(f"{option} {printable(unknown[0])}: there are {', '.join(known)}")


def load_settings(*, need_token: bool = False) -> Settings:
    """The settings; wrong ones end the command with the one message that names every problem."""
    import settings  # noqa: PLC0415 - slow to import, and --help is quick

    try:
        return settings.load(need_token=need_token)
    except settings.SettingsError as error:
        fail(str(error), USAGE_ERROR)


@contextmanager
def report_if_interrupted(account: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C, SIGTERM, or output that cannot be written, ends the command with an account of what was done."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        fail(f"{give_up_output(error)}\n{account()}", FAILED)
    except KeyboardInterrupt:
        fail(f"interrupted\n{account()}", INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)


def give_up_output(error: OSError) -> str:
    """Drop what is left to write; return what went wrong."""
    _drop(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return "standard output was closed"
    return f"input or output failed: {error.strerror or type(error).__name__}"


@contextmanager
def telling_of_output() -> Iterator[None]:
    """Output that cannot be written, and that nothing inside accounts for, ends the program with one line."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what a command left in the buffer: at its end Python would only say so in its status
    except OSError as error:
        try:
            fail(give_up_output(error))
        except OSError:  # nor can that be told
            _drop(sys.stderr)
        except typer.Exit:
            pass
        sys.exit(FAILED)


def _drop(output: TextIO) -> None:
    """What is not written yet goes nowhere, or Python would try it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


@contextmanager
def redis_or_stop(settings: Settings) -> Iterator[None]:
    """Trouble with Redis inside ends the command: what the server refused, or that it cannot be reached."""
    from redis.exceptions import RedisError  # noqa: PLC0415 - slow to import, and --help is quick

    from worker.cli.refusals import described  # noqa: PLC0415 - as above

    try:
        yield
    except RedisError as error:
        fail(f"Redis at {redis_address(settings)}{described(error)}")


def redis_address(settings: Settings) -> str:
    """Where Redis is, for people: host, port and database, and nothing secret."""
    from worker.broker.connection import public_url  # noqa: PLC0415 - slow to import, and --help is quick

    return public_url(settings).partition("://")[2]
