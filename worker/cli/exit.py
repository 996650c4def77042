"""Ends commands that cannot go on: with one message on standard error, no traceback, and an exit status for scripts."""

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

#: The command failed: Redis is away, a job is invalid, or the demo did not add up.
FAILED = 1
#: The settings or options are wrong.
USAGE_ERROR = 2
#: Ctrl-C, with the status that shells use.
INTERRUPTED = 130


def fail(message: str, status: int = FAILED) -> NoReturn:
    """End the command with a message and a status."""
    shown = "\n".join(map(printable, message.split("\n")))  # the message may quote arguments and settings
    typer.echo(f"lock-worker: {shown}", err=True)
    raise typer.Exit(status)


def require_known(option: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    """End the command if a value of an option is unknown; the message lists the known ones."""
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise typer.BadParameter(f"{option} {printable(unknown[0])}: there are {', '.join(known)}")


def load_settings(*, need_token: bool = False) -> Settings:
    """Return the settings; wrong ones end the command with one message that names every problem."""
    import settings  # noqa: PLC0415 - slow to import, and --help is quick

    try:
        return settings.load(need_token=need_token)
    except settings.SettingsError as error:
        fail(str(error), USAGE_ERROR)


def is_confirmed(question: str) -> bool:
    """Ask on the terminal; Ctrl-C and an end of input are a no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        return False


@contextmanager
def report_if_interrupted(account: Callable[[], str]) -> Iterator[None]:
    """End the command on Ctrl-C, SIGTERM or a failure to write output, and report what was done until then."""
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
    """Drop the output that is left; return what went wrong."""
    _drop(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return "standard output was closed"
    return f"input or output failed: {error.strerror or type(error).__name__}"


@contextmanager
def report_output_errors() -> Iterator[None]:
    """End the program with one line if output cannot be written and no command reports it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what a command left in the buffer: at its end Python would only say so in its status
    except OSError as error:
        try:
            fail(give_up_output(error))
        except OSError:  # standard error cannot be written either
            _drop(sys.stderr)
        except typer.Exit:
            pass
        sys.exit(FAILED)


def _drop(output: TextIO) -> None:
    """Send the unwritten output to /dev/null, or Python would try to write it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


@contextmanager
def redis_or_stop(settings: Settings) -> Iterator[None]:
    """End the command on an error of Redis, with what the server refused, or that it cannot be reached."""
    from redis.exceptions import RedisError  # noqa: PLC0415 - slow to import, and --help is quick

    from worker.cli.refusals import described  # noqa: PLC0415 - as above

    try:
        yield
    except RedisError as error:
        fail(f"Redis at {redis_address(settings)}{described(error)}")


def redis_address(settings: Settings) -> str:
    """Return the address of Redis for people: host, port and database, without user and password."""
    from worker.broker.connection import public_url  # noqa: PLC0415 - slow to import, and --help is quick

    return public_url(settings).partition("://")[2]
