"""What must be true of a round in which operators steered the fleet; see ``tests.chaos.invariants``."""

from __future__ import annotations

from collections import defaultdict
from signal import SIGINT
from typing import TYPE_CHECKING

from tests.chaos.plan import Kind
from tests.chaos.steering import Action
from worker.cli.exit import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from tests.chaos.history import Call, Event, History, Steered
    from tests.chaos.plan import Job

Found: TypeAlias = "Iterator[tuple[str | None, str]]"

#: A stream's moment is cut to milliseconds.
_GRAIN_SECONDS = 0.005
_CANCELLED = {"cancelled", "revoked"}
#: Answers that are certain not to have locked anything.
_REFUSALS = {"401", "429", "503"}
_TRAIL = {
    Action.PAUSE: ("paused", "resumed"), Action.PAUSE_FOR_A_TIME: ("paused",),
    Action.HOLD_RULE: ("held", "released"), Action.HOLD_ACTOR: ("held", "released"),
    Action.CANCEL_IDS: ("cancelled",), Action.CANCEL_RULE: ("cancelled", "released"),
}  # fmt: skip


def no_call_while_it_is_stopped(history: History) -> Found:
    """No call begins for a job that is paused, held or cancelled, once all workers have told that they obey.

    But for each message of the job, one call may have been out by then, and the API may hear of it as late as a call
    may take; and so may a call that a worker was about to make when it was stalled. The second call of a try that found
    its token refused belongs to the first. In a failover, workers leave the old primary one after the other.
    """
    for each in history.steered:
        if each.obeyed is None or history.fails_over_between(each.began, each.lifted):
            continue
        for key, job in history.jobs.items():
            if not each.is_for(job):
                continue
            late = _calls_between(history, key, each.obeyed + _GRAIN_SECONDS, each.lifted)
            stalls = sum(loss.may_call_late for loss in history.losses_of(key))
            out = [call for call in late if call.at <= each.obeyed + history.attempt_timeout]
            if len(out) > len(history.messages_of[key]) + stalls or len(late) - len(out) > stalls:
                after = late[-1].at - each.obeyed
                yield key, f"{len(late)} calls in the {each.steer.action}, {after:.3f} s after all obeyed at most"


def who_is_cancelled_was_to_be(history: History) -> Found:
    """A job ends as cancelled or revoked only if somebody asked for that, and it was so while the job was there."""
    for key, job in history.jobs.items():
        for event in history.events_of[key]:
            if event.outcome in _CANCELLED and not _cancels(history, job, event):
                yield key, f"it ended as {event.outcome}, and nobody had asked for that"


def a_cancelled_job_tells_whether_it_was_called(history: History) -> Found:
    """Its event is a skip before any call, and a failure after one, or after a worker's death that may hide one.

    The API does not see a call whose connection it refused; the event's own history tells of that one.
    """
    for key in history.jobs:
        for event in history.events_of[key]:
            if event.outcome not in _CANCELLED or history.is_half_known(key):
                continue
            calls = [call for call in history.calls_of(key) if call.at <= event.at]
            may_have_locked = [call for call in calls if call.answer not in _REFUSALS]
            stalls = sum(loss.may_call_late for loss in history.losses_of(key))
            if not event.is_failure and len(may_have_locked) > stalls + len(history.messages_of[key]) - 1:
                yield key, f"a skip by {event.outcome} after {len(may_have_locked)} calls"
            elif event.is_failure and not (calls or event.tells_of_a_call or history.losses_of(key)):
                yield key, f"a failure by {event.outcome} without a call"


def who_is_cancelled_before_ends_so(history: History) -> Found:
    """A job whose id was cancelled before it was sent is never called and ends as cancelled."""
    for each in history.steered:
        is_of_ids = each.steer.action in {Action.CANCEL_IDS, Action.REVOKE}
        if not is_of_ids or not history.is_acknowledged(each.began, each.done):
            continue
        for key, job in history.jobs.items():
            messages = history.messages_of[key]
            if each.is_for(job) and messages and min(message.began for message in messages) > each.done:
                for event in history.events_of[key]:
                    if event.outcome not in _CANCELLED:
                        yield key, f"it was sent after its {each.steer.action}, and ended as {event.outcome}"


def the_trail_names_each_action(history: History) -> Found:
    """Each action is noted in the control stream, and so is its undoing; a pause may have ended by itself.

    What was done while there were two primaries may be forgotten.
    """
    noted = set(history.trail)
    for each in history.steered:
        if not history.is_acknowledged(each.began, each.lifted):
            continue
        for what in _TRAIL.get(each.steer.action, ()):
            if (what, each.steer.reason) not in noted:
                yield None, f"the control stream does not tell that {each.steer.reason} was {what}"


def a_rule_gets_its_limit_at_most(history: History) -> Found:
    """No more jobs of a rule are called than its limit, and as many again for each hold that its limit has set.

    The limit is for longer than a round, and a new count begins with each hold. Jobs that were on hold before their
    first call are not counted.
    """
    limit = history.plan.rule_limit
    if limit is None:
        return
    first_calls: dict[str, list[float]] = defaultdict(list)
    for key, job in history.jobs.items():
        if _counts_for_its_rule(history, key, job):
            first_calls[job.rule].append(min(call.at for call in history.calls_of(key)))
    for rule, moments in first_calls.items():
        holds = sorted(hold.at for hold in history.held_rules if hold.rule == rule)
        for count, at in enumerate(sorted(moments), start=1):
            before = sum(hold <= at for hold in holds)
            if count > limit * (1 + before):
                yield None, f"{rule} got {count} calls, with a limit of {limit}, when it had been held {before} times"
                break


def _counts_for_its_rule(history: History, key: str, job: Job) -> bool:
    if job.kind in {Kind.INVALID, Kind.NAMELESS, Kind.DRY_RUN}:
        return False
    return bool(history.calls_of(key)) and not any(event.was_on_hold for event in history.events_of[key])


def commands_end_as_promised(history: History) -> Found:
    """A command ends well, or says that it failed, or that it was interrupted; never with a traceback.

    An interruption while the interpreter ends ends it by the signal.
    """
    for ran in history.commands:
        if (
            ran.status not in ({0, 1, INTERRUPTED, -SIGINT} if ran.was_interrupted else {0, 1})
            or "Traceback" in ran.output
        ):
            yield None, f"lock-worker {' '.join(ran.arguments)} ended with status {ran.status}:\n{ran.output}"


def _calls_between(history: History, key: str, begin: float, end: float) -> list[Call]:
    return [call for call in history.calls_of(key) if begin < call.at < end and call.answer != "401"]


def _cancels(history: History, job: Job, event: Event) -> list[Steered]:
    """What was asked that may have ended a job so."""
    wanted = {Action.REVOKE} if event.outcome == "revoked" else {Action.CANCEL_IDS, Action.CANCEL_RULE}
    return [
        each
        for each in history.steered
        if each.steer.action in wanted and each.is_for(job) and each.began <= event.at + _GRAIN_SECONDS
    ]
