"""Each invariant of what operators do sees what it is there for, as the other ones do (`test_invariants`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos import steering_invariants
from tests.chaos.doctored import BEGAN, KILL, called, counts, dead, doctored, ends, event, job, loses, uncalled
from tests.chaos.history import History, Ran, RuleHold, Steered
from tests.chaos.invariants import INVARIANTS, violations
from tests.chaos.steering import Action, Steer
from worker.cli.exit import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.doctored import Change


def steered(action: Action, *jobs: str, noted: bool = True, **options: object) -> Change:
    """Somebody did this half a second after the round began, and all obeyed after the calls of a right round."""

    def change(history: History) -> None:
        steer = Steer(len(history.steered), 0.5, action, 2.0, job("good-1").rule, jobs)
        lifted = BEGAN + 2.5 if action.is_undone else float("inf")
        usual = Steered(steer, BEGAN + 0.5, BEGAN + 0.6, BEGAN + 1.2, lifted)
        history.steered.append(replace(usual, **options))  # type: ignore[arg-type]
        if noted:
            history.trail += [(what, steer.reason) for what in ("paused", "resumed", "held", "released", "cancelled")]

    return change


def cancelled(
    name: str, *, is_failure: bool = False, outcome: str = "cancelled", tells_of_a_call: bool = False
) -> list[Change]:
    """It ended so, instead of as it did."""
    body = event(name, outcome, outcome, attempts=0, is_failure=is_failure, tells_of_a_call=tells_of_a_call)

    def letter(history: History) -> None:
        history.dead_letters += [dead(body, name)] if is_failure else []

    return [ends(name, body), letter, counts(outcome_locked=2, **{f"outcome_{outcome}": 1})]


#: Calls of a job that the API hears of while it is stopped: the first one may have been out before.
LATE = [called(at=BEGAN + 1.5, answer="500"), called(at=BEGAN + 1.8, answer="500")]
RUNAWAY = [
    lambda history: setattr(history, "plan", replace(history.plan, rule_limit=1, concurrency=1, pods=1)),
]

#: What is wrong, what finds it, and what else it breaks by the way; with the changes that bring it about.
DOCTORED: dict[str, tuple[set[str], Sequence[Change]]] = {
    "calls in a pause": (
        {"no_call_while_it_is_stopped"},
        [steered(Action.PAUSE), uncalled, *LATE, ends("good-1", event("good-1", at=BEGAN + 3, attempts=3))],
    ),
    "calls of a held job": (
        {"no_call_while_it_is_stopped"},
        [steered(Action.HOLD_RULE), uncalled, *LATE, ends("good-1", event("good-1", at=BEGAN + 3, attempts=3))],
    ),
    "calls of a cancelled job": (
        {"no_call_while_it_is_stopped"},
        [
            steered(Action.CANCEL_IDS, "good-1"),
            uncalled,
            *LATE,
            ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
        ],
    ),
    "a call of a held job that was not out before": (
        {"no_call_while_it_is_stopped"},
        [
            steered(Action.HOLD_RULE, lifted=BEGAN + 9),
            uncalled,
            called(at=BEGAN + 4),
            ends("good-1", event("good-1", at=BEGAN + 5)),
        ],
    ),
    "a job that is cancelled, and nobody asked for it": (
        {"who_is_cancelled_was_to_be"},
        [uncalled, *cancelled("good-1")],
    ),
    "a job that is cancelled, and only another one was to be": (
        {"who_is_cancelled_was_to_be"},
        [steered(Action.CANCEL_IDS, "good-2", obeyed=None), uncalled, *cancelled("good-1")],
    ),
    "a job that is cancelled, and only revoked it was": (
        {"who_is_cancelled_was_to_be"},
        [steered(Action.REVOKE, "good-1"), uncalled, *cancelled("good-1")],
    ),
    "a job that is cancelled before somebody asked for it": (
        {"who_is_cancelled_was_to_be"},
        [
            steered(Action.CANCEL_IDS, "good-1", began=BEGAN + 2, done=BEGAN + 2, obeyed=None),
            uncalled,
            *cancelled("good-1"),
        ],
    ),
    "a job that is skipped as cancelled after a call": (
        {"a_cancelled_job_tells_whether_it_was_called"},
        [steered(Action.CANCEL_IDS, "good-1", obeyed=None), *cancelled("good-1")],
    ),
    "a job that fails as cancelled without a call": (
        {"a_cancelled_job_tells_whether_it_was_called"},
        [steered(Action.CANCEL_IDS, "good-1"), uncalled, *cancelled("good-1", is_failure=True)],
    ),
    "a job that was cancelled before it was sent, and is locked": (
        {"who_is_cancelled_before_ends_so"},
        [steered(Action.CANCEL_IDS, "good-1", began=BEGAN, done=BEGAN + 0.05, obeyed=None)],
    ),
    "an action that is not noted": (
        {"the_trail_names_each_action"},
        [steered(Action.PAUSE, noted=False, obeyed=None)],
    ),
    "a rule that gets more than its limit": ({"a_rule_gets_its_limit_at_most"}, RUNAWAY),
    "a rule that gets more than its limit before it is held again": (
        {"a_rule_gets_its_limit_at_most"},
        [*RUNAWAY, lambda history: history.held_rules.append(RuleHold(job("good-1").rule, BEGAN + 9))],
    ),
    "a command that ends with a traceback": (
        {"commands_end_as_promised"},
        [lambda history: history.commands.append(Ran(("pause",), 1, was_interrupted=False, output="Traceback ..."))],
    ),
    "a command that is ended by a signal": (
        {"commands_end_as_promised"},
        [lambda history: history.commands.append(Ran(("pause",), -2, was_interrupted=False, output=""))],
    ),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_a_doctored_history_is_found_out(name: str) -> None:
    found_by, changes = DOCTORED[name]

    assert {each.invariant for each in violations(doctored(changes))} == found_by


def test_each_invariant_is_shown_to_see() -> None:
    shown = set().union(*(found_by for found_by, _ in DOCTORED.values()))
    assert shown >= {each.__name__ for each in INVARIANTS if each.__module__ == steering_invariants.__name__}


ALLOWED: dict[str, Sequence[Change]] = {
    "a job that is cancelled after a call whose connection the API refused": [
        steered(Action.CANCEL_IDS, "good-1", obeyed=None),
        uncalled,
        *cancelled("good-1", is_failure=True, tells_of_a_call=True),
    ],
    "a call that was out when all obeyed": [
        steered(Action.HOLD_RULE),
        uncalled,
        LATE[0],
        ends("good-1", event("good-1", at=BEGAN + 3)),
    ],
    "calls in a pause that not all were seen to obey": [
        steered(Action.PAUSE, obeyed=None),
        uncalled,
        *LATE,
        ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
    ],
    "a call of a held job after its release": [
        steered(Action.HOLD_RULE, lifted=BEGAN + 1.4),
        uncalled,
        *LATE,
        ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
    ],
    "a call of a job that another hold is for": [
        steered(Action.HOLD_ACTOR),
        uncalled,
        *LATE,
        ends("good-1", event("good-1", at=BEGAN + 3, attempts=3)),
    ],
    "a job that is cancelled before any call": [
        steered(Action.CANCEL_IDS, "good-1"),
        uncalled,
        *cancelled("good-1"),
    ],
    "a job that is cancelled by its rule after a call": [
        steered(Action.CANCEL_RULE, obeyed=None),
        *cancelled("good-1", is_failure=True),
    ],
    "a job that fails as cancelled, as a worker died on it": [
        steered(Action.CANCEL_IDS, "good-1"),
        uncalled,
        loses(KILL),
        *cancelled("good-1", is_failure=True),
    ],
    "a job that is revoked": [
        steered(Action.REVOKE, "good-1"),
        uncalled,
        *cancelled("good-1", outcome="revoked"),
    ],
    "a rule that asks for more than its limit and is held": [
        *RUNAWAY,
        lambda history: history.held_rules.extend([RuleHold(job("good-1").rule, BEGAN)] * len(history.jobs)),
    ],
    "a rule whose jobs were on hold": [
        *RUNAWAY,
        lambda history: setattr(history, "events", [replace(each, was_on_hold=True) for each in history.events]),
    ],
    "commands that end as they may": [
        lambda history: history.commands.extend(
            Ran(("pause",), status, was_interrupted=status == INTERRUPTED, output="") for status in (0, 1, INTERRUPTED)
        ),
    ],
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_no_fault_of_the_worker_is_no_violation(name: str) -> None:
    assert violations(doctored(ALLOWED[name])) == []
