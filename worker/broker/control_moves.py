"""What operators do to a fleet: pauses, holds and cancels, each noted in the control stream in the same step.

The functions return only the command: the command line sends it over redis-py's blocking client, and a worker, which
keeps a rule's limit and Celery's revokes, over its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from worker.broker import scripts
from worker.broker.move_limits import MAX_CONTROLS, SUSPICIOUS_CRASHES
from worker.broker.script_calls import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.keys import Keys
    from worker.broker.script_calls import Argument, Command

Action = Literal["pause", "resume", "set", "remove"]


class Trail(NamedTuple):
    """Where an action is noted: the stream, and how many events it keeps, about."""

    stream: str
    maxlen: int


class RuleCount(NamedTuple):
    """Jobs of a rule that are about to be run.

    Attributes:
        digest: of the rule.
        limit: how many may be in a window.
        window_ms: the window, in milliseconds.
        hold: the digest of the hold that the rule gets beyond that.
        text: the hold, as the controls have it.
        event: the event for the control stream.
        jobs: the refs and lease tokens of the jobs, in turn: JSON.
    """

    digest: str
    limit: int
    window_ms: int
    hold: str
    text: str
    event: str
    jobs: str


def control_command(
    fleet: Keys,
    trail: Trail,
    action: Action,
    event: str,
    *,
    field: str = "",
    text: str = "",
    until_ms: int = 0,
    expected: str | bytes = "*",
    whole_text: bool = False,
) -> Command:
    """Return the call of ``control.lua``.

    Its answer is the version, and 1 if it was done, 0 if there was nothing to end or the field says something else than
    expected, or -1 if there are too many fields.

    Args:
        fleet: the keys of LOCK_QUEUE.
        trail: where it is noted.
        action: what to do.
        event: what is noted; empty: nothing.
        field: the field of the controls to set or to remove.
        text: its text, or that of the pause.
        until_ms: until when a pause lasts, in milliseconds of the server's clock; 0: until it is ended.
        expected: what the field must say before, or else nothing is done; empty: nothing; ``*``: anything.
        whole_text: send the whole script.
    """
    arguments: list[Argument] = [action, field, text, until_ms, event, trail.maxlen, MAX_CONTROLS, expected]
    keys = [fleet.controls, fleet.pause, trail.stream, fleet.absent]
    return command(scripts.CONTROL, keys, arguments, whole_text=whole_text)


def cancel_command(
    fleet: Keys,
    trail: Trail,
    digests: Sequence[str],
    *,
    text: str,
    ttl_ms: int,
    event: str = "",
    is_new_only: bool = False,
    whole_text: bool = False,
) -> Command:
    """Return the call of ``cancel.lua``, which remembers job ids by their digests. Its answer is the new version.

    Args:
        fleet: the keys of LOCK_QUEUE.
        trail: where it is noted.
        digests: of the job ids.
        text: who cancelled them, and why: JSON.
        ttl_ms: for how long they are remembered, in milliseconds.
        event: what is noted; empty: nothing.
        is_new_only: leave the ids alone that are remembered already, and note nothing if all are.
        whole_text: send the whole script.
    """
    keys = [fleet.controls, fleet.cancelled, trail.stream, fleet.absent]
    arguments: list[Argument] = [fleet.cancelled_prefix, text, ttl_ms, event, trail.maxlen, int(is_new_only), *digests]
    return command(scripts.CANCEL, keys, arguments, whole_text=whole_text)


def wake_command(
    keys: Keys,
    fleet: Keys,
    members: Sequence[tuple[str, str, str]],
    *,
    max_age_ms: int,
    whole_text: bool = False,
) -> Command:
    """Return the call of ``wake.lua``. Its answer is the number of jobs that are ready now.

    Args:
        keys: the keys of the jobs' queue.
        fleet: the keys of LOCK_QUEUE.
        members: for each job ``delayed`` or ``held``, its member there, and its ref.
        max_age_ms: how long a job may live, in milliseconds; 0: for ever.
        whole_text: send the whole script.
    """
    parts = [part for each in members for part in each]
    arguments: list[Argument] = [keys.record_prefix, SUSPICIOUS_CRASHES, max_age_ms, *parts]
    names = [keys.delayed, keys.held, keys.requeued, keys.suspects, keys.deadlines, fleet.controls, keys.absent]
    return command(scripts.WAKE, names, arguments, whole_text=whole_text)


def count_rules_command(
    fleet: Keys, trail: Trail, counts: Sequence[RuleCount], *, keys: Keys, whole_text: bool = False
) -> Command:
    """Return the call of ``count_rules.lua``. Its answer is for each rule 0, 1 if it was on hold, or 2 if it is now.

    Args:
        fleet: the keys of LOCK_QUEUE.
        trail: where a hold is noted.
        counts: the rules and their jobs.
        keys: the keys of the jobs' queue.
        whole_text: send the whole script.
    """
    arguments: list[Argument] = [fleet.rules_prefix, trail.maxlen, MAX_CONTROLS, keys.record_prefix]
    for count in counts:
        arguments += count
    names = [fleet.controls, trail.stream, fleet.absent]
    return command(scripts.COUNT_RULES, names, arguments, whole_text=whole_text)
