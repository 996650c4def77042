"""``lock-worker watch``: shows result events as they come."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.exit import load_settings, require_known


def watch(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as JSON, for programs.")] = False,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest event that is kept.")] = False,
    last: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Begin with the newest N events of those to show; by default with none."),
    ] = None,
    outcomes: Annotated[
        list[str] | None,
        typer.Option("--outcome", metavar="OUTCOME", help="Only events with this outcome; may be repeated."),
    ] = None,
    job_ids: Annotated[
        list[str] | None, typer.Option("--job", metavar="ID", help="Only events of this job; may be repeated.")
    ] = None,
    conversations: Annotated[
        list[str] | None,
        typer.Option("--conversation", metavar="ID", help="Only events for this conversation; may be repeated."),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="ID", help="Only events of jobs of this rule; may be repeated."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many events.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="End after this time; with status 1 if fewer than --count (or none) came."
        ),
    ] = None,
) -> None:
    """Show result events as they come, until Ctrl-C.

    Follows the results stream, so no event is missed while Redis is away. A terminal shows the newest events in a
    table, with totals; other output has a line for each event.
    """
    from worker.cli.result import OUTCOMES  # noqa: PLC0415 - slow to import, and --help is quick

    require_known("--outcome", outcomes, OUTCOMES)
    if "" in (*(job_ids or ()), *(conversations or ())):
        raise typer.BadParameter("--job and --conversation take an id, which is not empty")
    if from_start and last is not None:
        raise typer.BadParameter("give --from-start or --last, not both")
    settings = load_settings()

    from worker.cli.watch.watch import ResultFilter, watch_results  # noqa: PLC0415 - slow to import, and --help is quick

    result_filter = ResultFilter(
        outcomes=frozenset(outcomes or ()),
        job_ids=frozenset(job_ids or ()),
        conversations=frozenset(conversations or ()),
        rules=frozenset(rules or ()),
        count=count,
        timeout=timeout,
    )
    watch_results(settings, result_filter, last=None if from_start else last or 0, as_json=as_json)
