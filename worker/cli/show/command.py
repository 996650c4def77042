"""``lock-worker show``: shows where a job is, and what happened to it."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.exit import load_settings


def show(
    *,
    job_id: Annotated[str | None, typer.Argument(metavar="JOB_ID", show_default=False)] = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", metavar="ID", help="All jobs for this conversation instead.")
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(
            "--events", min=0, metavar="N", help="Look at the newest N events and dead letters only; by default at all."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, or a list for --conversation, for programs.")
    ] = False,
) -> None:
    """Show where a job is, and all that happened to it.

    That is: when it was taken, each call and delay, and how it ended. It looks at the queues, at the jobs that workers
    have, at the results and at the dead letters. It needs no worker, changes nothing, and reads a few hundred entries
    at once, so that a long queue holds nobody up. Ctrl-C ends it with what was found. The exit status is 1 if there is
    no such job.
    """
    if (job_id is None) == (conversation is None):
        raise typer.BadParameter("give a job id, or --conversation ID")
    if not (job_id or conversation):
        raise typer.BadParameter("an id is not empty")
    settings = load_settings()

    from worker.cli.show.show import show_jobs  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.show.wanted import Wanted  # noqa: PLC0415 - as above

    show_jobs(settings, Wanted(job_id, conversation), events=events, as_json=as_json)
