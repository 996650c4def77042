"""Says what a command has done, to people in sentences or to programs in one JSON object, and ends it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from worker.cli.controls.obedience import wait_until_obeyed
from worker.cli.exit import FAILED
from worker.cli.folding import folded
from worker.message.control_event import iso_time
from worker.observe.printable import printable

if TYPE_CHECKING:
    from worker.cli.controls.steering import Done, Steering
    from worker.message.controls import Note
    from worker.message.selector import Selector


def finish(fleet: Steering, done: Done, note: Note, *, said: str, what: str, as_json: bool, **facts: object) -> None:
    """Wait until all workers obey, and say so. Exits with status 1 if some do not.

    Args:
        fleet: the fleet.
        done: what was done.
        note: by whom, and why.
        said: what was done, in a sentence.
        what: what is in force now, such as ``the pause``.
        as_json: say it to programs.
        facts: what programs learn beside that.
    """
    fleet.account = f"{said} Whether all workers obey was not awaited."
    seen = wait_until_obeyed(fleet, done.version)
    fleet.account = said
    if as_json:
        typer.echo(json.dumps({**facts, **note_json(note), "done": done.is_changed, "workers": seen.to_json()}))
    else:
        typer.echo(f"{folded(said, 2)}\n{folded(seen.sentence(what), 2)}")
    if seen.missing:
        raise typer.Exit(FAILED)


def note_json(note: Note) -> dict[str, Any]:
    """Return who did something, and why, for programs."""
    return {"by": note.by, "reason": note.reason, "at": iso_time(note.at_ms), "until": iso_time(note.until_ms)}


def until(note: Note, how_to_end: str) -> str:
    """Return until when something is in force, in words."""
    return f"until {short_time(note.until_ms)}" if note.until_ms else f"until {how_to_end}"


def short_time(ms: float) -> str:
    """Return a time as people read it, to the second, in UTC."""
    told = iso_time(ms)
    return "-" if told is None else f"{told[:10]} {told[11:19]}Z"


def by_whom(note: Note) -> str:
    """Return who did something, when and why, in words."""
    return printable(f"by {note.by} at {short_time(note.at_ms)}: {note.reason}")


def shown(selector: Selector) -> str:
    """Return a selector as its options, in words."""
    return printable(str(selector))
