"""Checks of what runs already: whether its workers are set as this one, and what they have trouble with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.cli.doctor.check import ok, problem, warning
from worker.cli.status.verdict import problems
from worker.observe.printable import printable
from worker.runtime.members import Member, differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settings import Settings
    from worker.cli.doctor.check import Check
    from worker.runtime.fleet_state import FleetState

_HERE = "here"
_NAMED = 3
_VALUE_CHARACTERS = 100
#: What ``lock-worker status`` may find that bears on a rollout. The rest is told elsewhere, or passes by itself.
_LEVELS = {
    "key_overwritten": problem,
    "results_unread": problem,
    "dead_letters_full": warning,
    "not_maintained": warning,
    "token_refused": warning,
    "api_down": warning,
    "paused": warning,
    "limited": warning,
    "jobs_fail": warning,
}


def fleet_checks(state: FleetState, settings: Settings) -> Iterator[Check]:
    """Yield what was found."""
    yield from agreement(state, settings)
    found = [each for each in problems(state, settings) if each.code in _LEVELS]
    for each in found:
        yield _LEVELS[each.code](f"fleet_{each.code}", each.text, each.advice)
    if not found:
        yield ok("fleet", "status finds nothing that stands in a rollout's way")


def agreement(state: FleetState, settings: Settings) -> Iterator[Check]:
    """Compare what must agree: these settings and those of each worker that runs."""
    own = Member("", _HERE, "", "", 0.0, (), settings.to_agree_on(), title=_HERE)
    differing = differences([own, *state.members])
    for name, values in differing.items():
        told = "; ".join(f"{_shown(value)} ({_names(names)})" for value, names in values.items())
        yield problem(
            "fleet_settings",
            f"{name} must be the same for all workers of this queue, and is not: {told}.",
            "Give all of them one value. If the change is meant, the fleet is mixed until the last old pod is gone.",
        )
    if not differing:
        count = len(state.members)
        what = f"{plural(count, 'worker')} that run" if count != 1 else "the worker that runs"
        yield ok("fleet_settings", f"these settings agree with those of {what}" if count else "no worker runs yet")


def _shown(value: object) -> str:
    return printable(str(value))[:_VALUE_CHARACTERS]


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(map(printable, names[:_NAMED]))}{more}"
