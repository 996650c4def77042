"""``lock-worker dead``: lists dead letters with a summary, shows one, and discards those that nobody needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.controls.options import OptionalReason, read_reason
from worker.cli.exit import load_settings, require_known

if TYPE_CHECKING:
    from worker.cli.dead_letters import DeadLetterFilter

_SHOWN = 10

Outcomes = Annotated[
    list[str] | None,
    typer.Option("--outcome", metavar="OUTCOME", help="Only dead letters with this outcome; may be repeated."),
]
Errors = Annotated[
    list[str] | None, typer.Option("--error", metavar="TYPE", help="Only with this error type; may be repeated.")
]
Rules = Annotated[
    list[str] | None, typer.Option("--rule", metavar="ID", help="Only of jobs of this rule; may be repeated.")
]
Conversations = Annotated[
    list[str] | None,
    typer.Option("--conversation", metavar="ID", help="Only of jobs for this conversation; may be repeated."),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only since then: 10m, 2h or 1d ago, or a time such as 2026-11-22."),
]
Last = Annotated[int, typer.Option("--last", min=0, metavar="N", help="Show the newest N of them.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

dead = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@dead.callback(invoke_without_command=True, epilog="Example: lock-worker dead --since 1d")
def dead_group(
    context: typer.Context,
    *,
    outcomes: Outcomes = None,
    errors: Errors = None,
    rules: Rules = None,
    conversations: Conversations = None,
    since: Since = None,
    last: Last = _SHOWN,
    as_json: AsJson = False,
) -> None:
    """Count, show and discard dead letters: the jobs that failed.

    Without a command it lists them. `lock-worker replay` sends their jobs again.
    """
    given = [outcomes, errors, rules, conversations, since, as_json, last != _SHOWN]
    if context.invoked_subcommand is None:
        _list(_filter(outcomes, errors, rules, conversations, since), last, as_json=as_json)
    elif any(given):
        raise typer.BadParameter(f"give the options behind `{context.invoked_subcommand}`")


@dead.command("list", epilog="Example: lock-worker dead list --error not_found --since 2h")
def list_command(
    *,
    outcomes: Outcomes = None,
    errors: Errors = None,
    rules: Rules = None,
    conversations: Conversations = None,
    since: Since = None,
    last: Last = _SHOWN,
    as_json: AsJson = False,
) -> None:
    """Count dead letters, and show the newest.

    It counts them by outcome, error type, rule and day, and changes nothing.
    """
    _list(_filter(outcomes, errors, rules, conversations, since), last, as_json=as_json)


@dead.command("show", epilog="Example: lock-worker dead show 1795359845250-0 --json | jq -r .message")
def show_command(
    *, name: Annotated[str, typer.Argument(metavar="ID", show_default=False)], as_json: AsJson = False
) -> None:
    """Show a dead letter, by its job id or entry.

    It shows the event, and the message as it came from the queue. The entry is its id in the stream. The exit status is
    1 if there is none.
    """
    settings = load_settings()

    from worker.cli.dead.show import show_letters  # noqa: PLC0415 - slow to import, and --help is quick

    show_letters(settings, name, as_json=as_json)


@dead.command("discard", epilog="Example: lock-worker dead discard --rule too-eager --since 1d")
def discard_command(
    *,
    names: Annotated[list[str] | None, typer.Argument(metavar="ID", hidden=True)] = None,
    outcomes: Outcomes = None,
    errors: Errors = None,
    rules: Rules = None,
    conversations: Conversations = None,
    since: Since = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    reason: OptionalReason = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters; asks before.

    Choose them by their job ids, by their entries in the stream, or by filters. Their jobs cannot be sent again then.
    The events in the results stay. The control stream notes who deleted them and why.
    """
    chosen = _filter(outcomes, errors, rules, conversations, since, names)
    if everything == chosen.is_some:
        raise typer.BadParameter("say which: ids, filters, or --all (and then none of the others)")
    settings = load_settings()

    from worker.cli.dead.discard import discard_letters  # noqa: PLC0415 - slow to import, and --help is quick

    why = "" if reason is None else read_reason(reason)
    discard_letters(settings, chosen, reason=why, yes=yes, as_json=as_json)


def _list(chosen: DeadLetterFilter, last: int, *, as_json: bool) -> None:
    settings = load_settings()

    from worker.cli.dead.summary import list_letters  # noqa: PLC0415 - slow to import, and --help is quick

    list_letters(settings, chosen, last=last, as_json=as_json)


def _filter(  # noqa: PLR0917 - one for each option
    outcomes: list[str] | None,
    errors: list[str] | None,
    rules: list[str] | None,
    conversations: list[str] | None,
    since: str | None,
    names: list[str] | None = None,
) -> DeadLetterFilter:
    from tasks.outcome import ProblemType  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.dead.since import since_ms  # noqa: PLC0415 - as above
    from worker.cli.dead_letters import DeadLetterFilter  # noqa: PLC0415 - as above
    from worker.cli.result import OUTCOMES  # noqa: PLC0415 - as above

    require_known("--outcome", outcomes, OUTCOMES)
    require_known("--error", errors, ProblemType)
    return DeadLetterFilter(
        names=frozenset(names or ()),
        outcomes=frozenset(outcomes or ()),
        errors=frozenset(errors or ()),
        rules=frozenset(rules or ()),
        conversations=frozenset(conversations or ()),
        since_ms=None if since is None else since_ms(since),
    )
