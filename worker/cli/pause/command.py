"""``lock-worker pause``: the whole fleet takes no jobs, until it is resumed or for some time."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.controls import options
from worker.cli.exit import load_settings


def pause(
    *,
    seconds: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="So long (90s, 10m, 1h30m, 2d); else until resumed.")
    ] = None,
    reason: options.Reason,
    as_json: options.AsJson = False,
) -> None:
    """Let all workers of the fleet take no more jobs.

    Jobs in flight are finished, all others wait in Redis and grow no older. The pause is kept in Redis, so workers that
    start later obey it too. It ends with lock-worker resume, or when its time is over. A second pause takes the place
    of the first.

    The command waits until every registered worker has said that it obeys, and exits with status 1 if some have not
    done so within 15 seconds; the pause stands all the same.
    """
    why, span = options.read_reason(reason), options.read_seconds(seconds)
    settings = load_settings()

    from worker.cli.controls import answers  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.controls.steering import steering  # noqa: PLC0415 - as above

    with steering(settings) as fleet:
        note = fleet.note(why, span)
        done = fleet.pause(note)
        said = f"The fleet takes no jobs {answers.until(note, 'it is resumed (lock-worker resume)')}."
        answers.finish(fleet, done, note, said=said, what="the pause", as_json=as_json, action="paused")
