"""``lock-worker workers``: lists the workers of the fleet."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.exit import load_settings, redis_or_stop


def workers(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False) -> None:
    """List the workers of the fleet.

    Each with its name, slots, jobs in flight, age, version and host; its open breakers and its last failed call. With
    --json also its queues, and the settings that must be the same for all of them. A worker registers itself in Redis
    every five seconds; one that was killed is listed for half a minute more.
    """
    import json  # noqa: PLC0415 - as below

    from worker.broker.connection import sync_client  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.folding import folded  # noqa: PLC0415 - as above
    from worker.cli.worker_view import worker_json, worker_lines  # noqa: PLC0415 - as above
    from worker.runtime.fleet_state import FleetNames, read_fleet_state_now  # noqa: PLC0415 - as above

    settings = load_settings()
    names = FleetNames.of(settings)
    with redis_or_stop(settings), sync_client(settings) as client:
        state = read_fleet_state_now(client, names)
    if as_json:
        typer.echo(json.dumps([worker_json(member, state.server_seconds) for member in state.members]))
        return
    for member in state.members:
        for line in worker_lines(member, state.server_seconds):
            typer.echo(folded(line.removeprefix("  "), 4))
    if not state.members:
        typer.echo("No worker is registered.")
