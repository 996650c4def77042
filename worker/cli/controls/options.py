"""The options of the commands that steer a fleet: which jobs, for how long, and why.

Every problem is reported with the option's name and what to write instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from worker.cli.durations import seconds_in
from worker.message.selector import Selector
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The values of an option, as often as it was given: a second one must not take the place of the first unnoticed.
_Values: TypeAlias = list[str] | None
Rule = Annotated[_Values, typer.Option("--rule", metavar="ID", help="Jobs of this rule (their rule_id).")]
Actor = Annotated[_Values, typer.Option("--actor", metavar="TEXT", help="Jobs that this service or person asked.")]
Policy = Annotated[_Values, typer.Option("--policy", metavar="ID", help="Jobs with this policy among theirs.")]
Conversation = Annotated[_Values, typer.Option("--conversation", metavar="ID", help="Jobs of this conversation.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for people; it is kept for all to read.")]
OptionalReason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for people.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]

#: The longest values that a job may have in these fields.
_MAX_CHARACTERS = {"rule": 128, "actor": 128, "policy": 128, "conversation": 256}
_MAX_REASON = 1000


def read_reason(text: str) -> str:
    """Return the reason; one that is blank, too long or no text ends the command."""
    reason = text.strip()
    if not reason:
        raise typer.BadParameter('--reason is blank: say why in some words, such as --reason "rule r-7 runs wild"')
    if len(reason) > _MAX_REASON:
        raise typer.BadParameter(f"--reason has {len(reason):,} characters: write {_MAX_REASON:,} at most")
    _require_text("--reason", reason)
    return reason


def read_seconds(text: str | None) -> int | None:
    """Return the seconds that ``--for`` names; None: it was not given. Anything else ends the command."""
    if text is None:
        return None
    try:
        return seconds_in(text)
    except ValueError as error:
        raise typer.BadParameter(f"--for {printable(text)}: {error}") from None


def read_selector(**given: Sequence[str] | None) -> Selector:
    """Return which jobs are meant, by the values of each option; it has no field if no option was given."""
    selector = Selector(**{name: _only(f"--{name}", values) for name, values in given.items() if values})
    for name, value in selector.fields.items():
        option, longest = f"--{name}", _MAX_CHARACTERS[name]
        if not value:
            raise typer.BadParameter(f"{option} is empty, and would match no job: write its value, or leave it out")
        if len(value) > longest:
            raise typer.BadParameter(f"{option} has {len(value):,} characters, and no job has over {longest} there")
        _require_text(option, value)
    return selector


def _only(option: str, values: Sequence[str]) -> str:
    """Return the one value of an option. Of several, none may be left out without a word."""
    if len(values) > 1:
        raise typer.BadParameter(
            f"{option} is given {len(values)} times, and a job must match all options: give it once, and run the "
            "command for each value"
        )
    return values[0]


def require_selector(selector: Selector, *, or_all: str = "") -> None:
    """End the command if no option says which jobs are meant; ``or_all`` names the option that means all of them."""
    if not selector.fields:
        names = f"--rule, --actor, --policy or --conversation (all given must match){or_all}"
        raise typer.BadParameter(f"say which jobs: {names}")


def _require_text(option: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{option} holds bytes that are no UTF-8: write it as text") from None
