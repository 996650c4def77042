"""``lock-worker holds``: the holds with their jobs, cancels for jobs to come, and the pause."""

from __future__ import annotations

import typer

from worker.cli.controls import options  # noqa: TC001 - typer reads the annotations when it runs
from worker.cli.exit import load_settings, redis_or_stop


def holds(*, as_json: options.AsJson = False) -> None:
    """List what operators asked for: holds, cancels, and a pause.

    Of each hold: which jobs, how many are held now, by whom, since when, until when, and why. The jobs are counted over
    all queues of the fleet. Below them: cancels that are also for jobs to come, and a pause. It changes nothing.
    """
    settings = load_settings()

    from worker.broker.connection import sync_client  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.holds.holds import read_holds  # noqa: PLC0415 - as above
    from worker.cli.holds.table import as_json as for_programs  # noqa: PLC0415 - as above
    from worker.cli.holds.table import print_table  # noqa: PLC0415 - as above

    with redis_or_stop(settings), sync_client(settings) as client:
        found = read_holds(client, settings)
    if as_json:
        typer.echo(for_programs(found))
    else:
        print_table(found)
