"""``lock-worker status``: shows whether all is well, and the state of the queue and its workers."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.exit import INTERRUPTED, USAGE_ERROR, fail, load_settings, redis_or_stop

if TYPE_CHECKING:
    from redis import Redis

    from settings import Settings

_WATCH_SECONDS = 2.0
#: Clears what is left of a line, and of the screen; moves to the first line.
_REST_OF_LINE, _REST_OF_SCREEN, _HOME = "\x1b[K", "\x1b[J", "\x1b[H"


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it on the screen, and read it every 2 seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Show whether all is well; if not, what is wrong, and what to do.

    Then the jobs by state, with the age of the oldest; rates; the fleet's pauses and limits; the workers, with their
    slots, open breakers and last failed call, and settings in which they differ; how full the streams are, and how far
    their consumer groups have read them. It changes nothing. The exit status is 0 whenever the state could be read.
    """
    from worker.broker.connection import sync_client  # noqa: PLC0415 - slow to import, and --help is quick

    if watch and (as_json or not sys.stdout.isatty()):
        fail("--watch needs a terminal, and no --json; programs run status --json as often as they like", USAGE_ERROR)
    settings = load_settings()
    with redis_or_stop(settings), sync_client(settings) as client:
        if watch:
            _watch(client, settings)
        else:
            typer.echo(_text(client, settings, as_json=as_json))


def _text(client: Redis, settings: Settings, *, as_json: bool) -> str:
    from worker.cli.status import as_json as programs  # noqa: PLC0415 - as above
    from worker.cli.status.lines import lines  # noqa: PLC0415 - as above
    from worker.cli.status.report import read_report  # noqa: PLC0415 - as above

    report = read_report(client, settings)
    if as_json:
        return programs.as_json(report)
    return "\n".join(lines(report, shutil.get_terminal_size((80, 24)).columns))


def _watch(client: Redis, settings: Settings) -> None:
    """Show it anew until Ctrl-C. The screen is overwritten and not cleared, so that it does not flicker."""
    typer.echo(f"{_HOME}{_REST_OF_SCREEN}", nl=False)
    try:
        while True:
            size = shutil.get_terminal_size()
            shown = _text(client, settings, as_json=False).split("\n")[: size.lines - 1]
            typer.echo(_HOME + "".join(f"{line}{_REST_OF_LINE}\n" for line in shown) + _REST_OF_SCREEN, nl=False)
            time.sleep(_WATCH_SECONDS)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
