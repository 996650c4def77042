"""Shows holds: as a table to people, as JSON to programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.plural import plural
from worker.cli.controls import answers
from worker.cli.folding import folded
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.cli.holds.holds import Holds
    from worker.message.controls import Control

#: The width of output that is not for a terminal: no line of a table wraps there, unless a reason is very long.
_WIDTH = 1000


def as_json(found: Holds) -> str:
    """Return all of it as one JSON object. Its field names are stable."""
    return json.dumps(
        {
            "holds": [{**_control(hold), "held": count} for hold, count in found.holds],
            "cancels": [_control(cancel) for cancel in found.cancels],
            "pause": None if found.pause is None else answers.note_json(found.pause),
            "going_on": found.going_on,
        }
    )


def _control(control: Control) -> dict[str, Any]:
    return {"selector": control.selector.fields, **answers.note_json(control.note)}


def print_table(found: Holds) -> None:
    """Print all of it for people."""
    if not found.holds:
        typer.echo("No jobs are held.")
    else:
        _print("held now", ((hold, f"{count:,}") for hold, count in found.holds))
    if found.going_on:
        are = "goes" if found.going_on == 1 else "go"
        typer.echo(f"{plural(found.going_on, 'job')} of holds that are ended {are} on.")
    if found.cancels:
        typer.echo("\nCancelled, also when they come later (lock-worker release --cancel ends it):")
        _print("", ((cancel, "") for cancel in found.cancels))
    if found.pause is not None:
        until = answers.until(found.pause, "it is resumed")
        typer.echo(folded(f"The fleet takes no jobs {until}: paused {answers.by_whom(found.pause)}", 2))


def _print(count_title: str, rows: Iterable[tuple[Control, str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("which jobs", overflow="fold")
    if count_title:
        table.add_column(count_title, justify="right", no_wrap=True)
    for title in ("by", "since", "until"):
        table.add_column(title, overflow="fold")
    table.add_column("reason", overflow="fold")
    for control, count in rows:
        note = control.note
        cells = [answers.shown(control.selector), *([count] if count_title else []), printable(note.by)]
        cells += [answers.short_time(note.at_ms), answers.short_time(note.until_ms), printable(note.reason)]
        table.add_row(*map(Text, cells))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    console.print(table)
