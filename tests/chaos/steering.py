"""What operators do in a round: pauses, holds, cancels and revokes, each of them undone before the end.

It is drawn from the round's seed, as the faults are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

#: Into so many rules, and actors, the jobs of a round are divided.
RULES = 5
ACTORS = 4

#: At the least, so many of each in a round; one more for each so many seconds.
_OF_EACH = 1
_SECONDS_PER_ACTION = 12.0
_IDS_AT_ONCE = (1, 8)
#: Before the last undoing there is time to see that all goes on.
_END_SHARE = 0.95


class Action(StrEnum):
    """What an operator does."""

    PAUSE = "pause"
    PAUSE_FOR_A_TIME = "pause with an end"
    HOLD_RULE = "hold of a rule"
    HOLD_ACTOR = "hold of an actor"
    CANCEL_IDS = "cancel of job ids"
    CANCEL_RULE = "cancel of a rule's jobs"
    REVOKE = "revoke through Celery"

    @property
    def on(self) -> str:
        """What it is done to: of one thing only one action is in force at a time."""
        return "fleet" if self in _PAUSES else self.name

    @property
    def is_pause(self) -> bool:
        """Whether it stops the fleet as a whole."""
        return self in _PAUSES

    @property
    def ends_jobs(self) -> bool:
        """Whether it ends jobs; the others only let them wait."""
        return self in {Action.CANCEL_IDS, Action.CANCEL_RULE, Action.REVOKE}

    @property
    def is_undone(self) -> bool:
        """Whether it has an end; ids stay cancelled."""
        return self not in {Action.CANCEL_IDS, Action.REVOKE}


_PAUSES = {Action.PAUSE, Action.PAUSE_FOR_A_TIME}
#: What operators do by a command in this share of cases; else they write what the commands write.
_COMMANDS = _PAUSES | {Action.HOLD_RULE, Action.HOLD_ACTOR, Action.CANCEL_IDS}
_COMMAND_SHARE = 0.4
#: How long it lasts: a pause is short, as nothing moves meanwhile.
_SECONDS = {
    Action.PAUSE: (1.5, 4.0), Action.PAUSE_FOR_A_TIME: (1.5, 4.0),
    Action.HOLD_RULE: (3.0, 10.0), Action.HOLD_ACTOR: (3.0, 10.0), Action.CANCEL_RULE: (1.5, 5.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steer:
    """An action: when, for how long, and which jobs it is for.

    Attributes:
        number: which of the round's.
        who: the rule or the actor; empty for the others.
        jobs: the job ids.
        by_command: the operator uses the command line.
    """

    number: int
    at: float
    action: Action
    seconds: float
    who: str = ""
    jobs: tuple[str, ...] = ()
    by_command: bool = False

    @property
    def reason(self) -> str:
        """What it is noted by; no other action has the same."""
        return f"action {self.number} of the round"


def draw_steers(
    random: Random, seconds: float, jobs: Sequence[tuple[float, str]], *, may_hold_rules: bool
) -> Iterator[Steer]:
    """Draw the actions of a round.

    Args:
        random: draws.
        seconds: how long the round's faults happen.
        jobs: when jobs are sent, and the ids of those that may be cancelled: some long before they are sent.
        may_hold_rules: nobody else holds rules in this round.
    """
    actions = [each for each in Action if may_hold_rules or each is not Action.HOLD_RULE]
    drawn = [*actions * _OF_EACH, *random.choices(actions, k=round(seconds / _SECONDS_PER_ACTION))]
    free_at: dict[str, float] = {}
    moments = sorted(random.uniform(0.5, seconds * _END_SHARE) for _ in drawn)
    random.shuffle(drawn)
    unused = list(jobs)
    for number, (moment, action) in enumerate(zip(moments, drawn, strict=True)):
        at = max(moment, free_at.get(action.on, 0.0))
        length = random.uniform(*_SECONDS.get(action, (0.0, 0.0)))
        free_at[action.on] = at + length + 3.0
        who = ""
        if action in {Action.HOLD_RULE, Action.CANCEL_RULE}:
            who = f"rule-{random.randrange(RULES)}"
        elif action is Action.HOLD_ACTOR:
            who = f"actor-{random.randrange(ACTORS)}"
        ids: tuple[str, ...] = ()
        if action in {Action.CANCEL_IDS, Action.REVOKE}:
            near = [each for each in unused if abs(each[0] - at) < seconds / 4]
            chosen = random.sample(near, min(len(near), random.randint(*_IDS_AT_ONCE)))
            unused = [each for each in unused if each not in chosen]
            ids = tuple(job for _, job in chosen)
        by_command = action in _COMMANDS and random.random() < _COMMAND_SHARE
        yield Steer(number, at, action, length, who, ids, by_command)
