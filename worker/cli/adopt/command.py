"""``lock-worker adopt``: brings jobs that no worker will take to LOCK_QUEUE."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.exit import load_settings


def adopt(
    *,
    queues: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="NAME", help="Only what this queue has; may be repeated."),
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="Show what there is, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Bring jobs to LOCK_QUEUE that no worker would ever take.

    These are: jobs that a killed stock Celery worker left in kombu's "unacked", and jobs of a queue that workers took
    from before and none does now, such as the one that LOCK_QUEUE named. Each job moves in one atomic step, so it is
    in one place at any time, even if this command runs several times at once.

    Stock workers that answer when they are asked keep their jobs. Stop the others first: the jobs that they run cannot
    be told from those of dead workers, and would be called twice.
    """
    settings = load_settings()

    from worker.cli.adopt.adopt import adopt_jobs  # noqa: PLC0415 - slow to import, and --help is quick

    adopt_jobs(settings, queues or [], as_list=as_list, as_json=as_json)
