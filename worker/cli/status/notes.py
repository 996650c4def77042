"""What somebody has set on purpose and an operator should know: it is shown, and the fleet is well all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.status.condition import StatusNote
from worker.cli.status.verdict import named
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.runtime.fleet_state import FleetState

#: So much is shown of the rules whose jobs are dry runs.
_RULES_CHARACTERS = 300


def notes(state: FleetState) -> list[StatusNote]:
    """Return what is set on purpose."""
    return list(_of_dry_runs(state))


def _of_dry_runs(state: FleetState) -> Iterator[StatusNote]:
    dry = [member for member in state.members if member.settings.get("DRY_RUN") is True]
    if dry:
        yield StatusNote(
            "dry_run",
            f"No job is called by {named(dry, state)}: DRY_RUN is set, and each job ends as would_lock.",
            "Unset DRY_RUN and restart them to lock conversations; a job may have the id of a dry run.",
        )
    rules = sorted({rules for each in state.members if isinstance(rules := each.settings.get("RULES_DRY_RUN"), str)})
    if rules:
        yield StatusNote(
            "rules_dry_run",
            f"Jobs of some rules are not called (RULES_DRY_RUN): {printable(', '.join(rules)[:_RULES_CHARACTERS])}.",
            "Take a rule out of RULES_DRY_RUN and restart the workers when its conversations are to be locked.",
        )
