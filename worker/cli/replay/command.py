"""``lock-worker replay``: sends the jobs of dead letters again."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.exit import load_settings, require_known


def replay(
    *,
    job_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB_ID", hidden=True),  # typer would call it <list[str]>
    ] = None,
    outcomes: Annotated[
        list[str] | None,
        typer.Option("--outcome", metavar="OUTCOME", help="Dead letters with this outcome; may be repeated."),
    ] = None,
    errors: Annotated[
        list[str] | None,
        typer.Option("--error", metavar="TYPE", help="Dead letters with this error type; may be repeated."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters, poisoned ones too.")] = False,
    as_list: Annotated[bool, typer.Option("--list", help="Show them, one a line, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON: the account, or with --list the events.")] = False,
    priority: Annotated[
        int, typer.Option(min=0, max=9, metavar="0..9", help="Of the new jobs; 9 lets all others go first.")
    ] = 0,
) -> None:
    """Send the jobs of dead letters again.

    Prints the new jobs' ids, one a line, or with --json one object that has each new job beside the old one. Choose the
    dead letters by job ids, outcome or error type, or take them all. Each becomes a new job on the queue that it came
    from (LOCK_QUEUE if its letter does not name it), whose event names the old job in data.replay_of. The dead letter
    is deleted in the same step, so that no job is sent twice. The new job has the fields and the expiry of the old one,
    but not its priority. A message that is no valid job stays.
    """
    from tasks.outcome import ProblemType  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.result import OUTCOMES  # noqa: PLC0415 - as above

    require_known("--outcome", outcomes, OUTCOMES)
    require_known("--error", errors, ProblemType)
    is_some = bool(job_ids or outcomes or errors)
    if not (is_some or everything or as_list):
        raise typer.BadParameter("say which: job ids, --outcome, --error, or --all (--list shows them)")
    if is_some and everything:
        raise typer.BadParameter("give --all, or job ids, --outcome and --error, and not both")
    settings = load_settings()

    from worker.cli.dead_letters import DeadLetterFilter  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.replay.replay import list_letters, replay_letters  # noqa: PLC0415 - as above

    chosen = DeadLetterFilter(
        names=frozenset(job_ids or ()), outcomes=frozenset(outcomes or ()), errors=frozenset(errors or ())
    )
    if as_list:
        list_letters(settings, chosen, as_json=as_json)
    else:
        replay_letters(settings, chosen, priority, as_json=as_json)
