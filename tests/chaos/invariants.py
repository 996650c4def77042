"""What must be true of every history, one small function each; pure, so that doctored histories can prove that it sees.

A function returns its violations, each with the job it is about. Where a bound allows for something, the docstring
says for what, and why no less would be fair.
"""

from __future__ import annotations

import signal
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tests.chaos.plan import Kind
from tests.chaos.steering_invariants import (
    a_cancelled_job_tells_whether_it_was_called,
    a_rule_gets_its_limit_at_most,
    commands_end_as_promised,
    no_call_while_it_is_stopped,
    the_trail_names_each_action,
    who_is_cancelled_before_ends_so,
    who_is_cancelled_was_to_be,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.history import Call, DeadLetter, History

#: The clocks of the records are one, but a stream's moment is cut to milliseconds.
_GRAIN_SECONDS = 0.005
#: What a loaded machine may need to end a process beside the time the worker is given.
_END_SLACK_SECONDS = 15.0
#: In any second, at most so many times as many calls as RATE_LIMIT_PER_SECOND says.
_RATE_SHARE = 1.25
#: After the API's event loop was late, it takes up to so long to get to the calls that had come meanwhile.
_CATCH_UP_SECONDS = 0.25

_OUTCOMES: dict[Kind, set[tuple[str, str | None]]] = {
    Kind.GOOD: {("locked", None)},
    Kind.DRY_RUN: {("would_lock", None)},
    Kind.MISSING: {("refused", "not_found")},
    Kind.FORBIDDEN: {("refused", "forbidden")},
    Kind.HOPELESS: {
        ("exhausted", problem) for problem in ("server_error", "unreachable", "timeout", "unconfirmed", "rate_limited")
    },
    Kind.EXPIRING: {("locked", None), ("expired", "expired")},
    Kind.CONFLICT: {("locked", None), ("rejected", "invalid_job")},
    Kind.INVALID: {("rejected", "invalid_job"), ("rejected", "undecodable"), ("rejected", "unknown_task")},
    Kind.NAMELESS: {("rejected", "invalid_job"), ("rejected", "undecodable"), ("rejected", "unknown_task")},
}
_CANCELLED = {"cancelled", "revoked"}
_NEVER_CALLED = {Kind.DRY_RUN, Kind.INVALID, Kind.NAMELESS}


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be. ``job`` is the key of the job that it is about, if it is about one."""

    invariant: str
    what: str
    job: str | None = None


Found: TypeAlias = "Iterator[tuple[str | None, str]]"
"""Of each violation the job and what is wrong."""


def no_job_is_lost(history: History) -> Found:
    """A job that Redis said it has ends in an event."""
    for key in history.jobs:
        sure = [each for each in history.messages_of[key] if each.is_sure]
        is_kept = any(history.is_acknowledged(each.began, each.ended) for each in sure)
        if is_kept and not history.events_of[key]:
            yield key, "no event"


def no_job_is_doubled(history: History) -> Found:
    """A job ends in one event, however often its message was sent."""
    for key in history.jobs:
        events = history.events_of[key]
        if len(events) > 1:
            yield key, f"{len(events)} events: {', '.join(event.outcome for event in events)}"


def no_event_id_is_used_twice(history: History) -> Found:
    """What an event's id names is one job's event: consumers take a second one with the same id for the same event."""
    owners: dict[str, set[str]] = defaultdict(set)
    for event in history.events:
        owners[event.id].add(history.key_of(event))
    for event_id, keys in owners.items():
        if len(keys) > 1:
            yield None, f"the events of {sorted(keys)} have the id {event_id!r}"


def no_event_without_a_job(history: History) -> Found:
    """An event belongs to a job that was sent."""
    for key, events in history.events_of.items():
        if not history.messages_of[key] and events:
            yield None, f"an event for {events[0].job_id!r}, which nobody sent"


def nothing_is_left(history: History) -> Found:
    """In the end no job is ready, in flight, delayed, on hold or suspect, no record is left, and no key for ever."""
    for place, count in history.left.items():
        if count:
            yield None, f"{count} left in {place}"
    for name in history.strays:
        yield None, f"the key {name!r} stays for ever"


def no_call_too_many(history: History) -> Found:
    """A job is called once, but again after each failed call, and once for each loss that it was in the middle of.

    Two bounds, and only what passes both is a violation. By the API: of calls that it answered for good, in time and
    in full, one, and one more for each loss, and for each message beyond the first (duplicates in flight at once may
    both call). By the worker: as many calls as the event counts, and the same extra. The first alone would be unfair to
    a worker that never got a good answer: it counts that call. The second alone would be unfair to one that was
    killed: with it go the counts of failed calls that it made again in their slot; nor does it count a breaker's
    probes and calls with an old token. Nor can anybody say what an old primary took with it in a failover.
    """
    for key, job in history.jobs.items():
        events, calls = history.events_of[key], history.calls_of(key)
        if job.kind in _NEVER_CALLED or not events or history.is_half_known(key):
            continue
        extra = len(history.losses_of(key)) + len(history.messages_of[key]) - 1
        clean = sum(_is_clean(call, history) for call in calls)
        attempts = max(event.attempts for event in events)
        if clean > 1 + extra and len(calls) > attempts + extra:
            yield key, f"{len(calls)} calls, {clean} answered for good, {attempts} counted; {extra} extra could be"


def no_call_where_none_is_due(history: History) -> Found:
    """A dry run or a message that is no valid job is never called."""
    for key, job in history.jobs.items():
        if job.kind in _NEVER_CALLED and history.calls_of(key):
            yield key, f"{len(history.calls_of(key))} calls"


def no_call_after_the_end(history: History) -> Found:
    """When a job's event is out it is not called any more, but once for each stall that it was in the middle of.

    A stalled worker may have been about to call. So may a worker that holds a duplicate: duplicates in flight at once
    may both call, and each as often as the API fails. And so may one that has not left the old primary of a failover.
    """
    for key in history.jobs:
        events = history.events_of[key]
        if not events or len(history.messages_of[key]) > 1 or history.is_half_known(key):
            continue
        end = min(event.at for event in events) + _GRAIN_SECONDS
        late = [call for call in history.calls_of(key) if call.at > end]
        stalls = sum(loss.may_call_late for loss in history.losses_of(key))
        if len(late) > stalls:
            yield key, f"{len(late)} calls after the event, {late[-1].at - end:.3f} s at most, with {stalls} stalls"


def one_idempotency_key_per_job(history: History) -> Found:
    """Each call of a job has the same Idempotency-Key, and no other job has it."""
    owners: dict[str | None, set[str]] = defaultdict(set)
    for key, job in history.jobs.items():
        keys = {call.key for call in history.calls_of(key)}
        if len(keys) > 1 or None in keys:
            yield key, f"Idempotency-Keys {keys}"
        for each in keys:
            owners[each].add(job.id)
    for each, ids in owners.items():
        if len(ids) > 1:
            yield None, f"the Idempotency-Key {each!r} belongs to {sorted(ids)}"


def outcomes_fit(history: History) -> Found:
    """A job ends as its kind must: nobody ends as poisoned, and as exhausted only whom the API never lets pass.

    Beside that, any valid job may be cancelled or revoked; whether it was to be, another invariant asks.
    """
    for key, job in history.jobs.items():
        for event in history.events_of[key]:
            if event.outcome in _CANCELLED and job.kind not in {Kind.INVALID, Kind.NAMELESS}:
                continue
            if (event.outcome, event.problem) not in _OUTCOMES[job.kind]:
                yield key, f"a job of kind {job.kind} ended as {event.outcome} ({event.problem})"
    for outcomes in _conflicts(history).values():
        if (
            len(outcomes) == 2
            and not _CANCELLED & set(outcomes.values())
            and sorted(outcomes.values()) != ["locked", "rejected"]
        ):
            yield min(outcomes), f"two jobs with one id ended as {sorted(outcomes.values())}"


def counters_add_up(history: History) -> Found:
    """Taken = finished + deduplicated, as nothing is in flight; finished = events, for each outcome too."""
    counters = history.counters
    if counters is None:
        return
    taken, finished, duplicates = (counters.get(name, 0) for name in ("taken", "finished", "deduplicated"))
    if taken != finished + duplicates:
        yield None, f"{taken} taken, but {finished} finished and {duplicates} deduplicated"
    if finished != len(history.events):
        yield None, f"{finished} finished, but {len(history.events)} events in the stream"
    if counters.get("vanished", 0):
        yield None, f"{counters['vanished']} jobs vanished"
    for outcome, count in Counter(event.outcome for event in history.events).items():
        if counters.get(f"outcome:{outcome}") != count:
            yield None, f"{count} events tell of {outcome}, the counter says {counters.get(f'outcome:{outcome}')}"


def dead_letters_match(history: History) -> Found:
    """Each failed event has one dead letter, with a message of its job, byte for byte; and no other event has."""
    letters: dict[bytes, list[DeadLetter]] = defaultdict(list)
    for letter in history.dead_letters:
        letters[letter.event].append(letter)
    for event in history.events:
        key, found = history.key_of(event), letters.pop(event.body, [])
        if len(found) != event.is_failure:
            yield key, f"{len(found)} dead letters for an event {event.outcome}"
        elif found and found[0].message not in [message.raw for message in history.messages_of[key]]:
            yield key, "its dead letter holds another message than was sent"
    for event_body in letters:
        yield None, f"a dead letter without an event: {event_body[:120]!r}"


def the_rate_is_kept(history: History) -> Found:
    """In any second at most 1.25 times as many calls come as the limit says.

    Calls come when the API's own event loop gets to them: where that was late, what came in the time before falls
    into the same second, or into the one that begins right after. So that time counts too.
    """
    rate = history.plan.rate_limit
    if rate is None:
        return
    moments = sorted(call.at for call in history.calls)
    for first, begin in enumerate(moments):
        count = bisect_left(moments, begin + 1.0) - first
        if count <= rate * _RATE_SHARE:
            continue
        since = begin - _CATCH_UP_SECONDS
        late = sum(span.end - span.begin for span in history.late if span.touches(since, begin + 1.0))
        if count > rate * _RATE_SHARE * (1.0 + late):
            yield None, f"{count} calls in the second from {begin - history.began:.3f} s, with a limit of {rate:g}"
            return


def workers_end_as_told(history: History) -> Found:
    """No worker ends by itself; one that is told by SIGTERM ends in time, with status 0.

    In the first moments of a process, while Python imports, SIGTERM simply ends it; it had no jobs yet.
    """
    for end in history.ends:
        if end.told == "SIGKILL":
            continue
        if end.told != "SIGTERM":
            yield None, f"{end.pod} ended by itself with status {end.status}: {end.log_tail}"
        elif end.status != 0 and (end.was_ready or end.status != -signal.SIGTERM):
            yield None, f"{end.pod} ended with status {end.status} after SIGTERM: {end.log_tail}"
        elif end.seconds > history.plan.shutdown_seconds + _END_SLACK_SECONDS:
            yield None, f"{end.pod} ended {end.seconds:.1f} s after SIGTERM"


def no_call_before_its_time(history: History) -> Found:
    """A job with a countdown is not called before it is over."""
    for key, job in history.jobs.items():
        calls, messages = history.calls_of(key), history.messages_of[key]
        if job.countdown and calls and messages:
            early = min(message.began for message in messages) + job.countdown - calls[0].at
            if early > _GRAIN_SECONDS:
                yield key, f"called {early:.3f} s too early"


def no_call_after_its_expiry(history: History) -> Found:
    """A job with an expiry is not called after it, but by a worker that stalled between its look and the call.

    The look comes before the call, which may take as long to get through as any call may take.
    """
    for key, job in history.jobs.items():
        calls, messages = history.calls_of(key), history.messages_of[key]
        if not job.expires or not calls or not messages:
            continue
        end = max(message.ended for message in messages) + job.expires + history.attempt_timeout
        late = [call for call in calls if call.at > end]
        if len(late) > sum(loss.may_call_late for loss in history.losses_of(key)):
            yield (
                key,
                f"{len(late)} calls after its expiry, {late[-1].at - end + history.attempt_timeout:.3f} s at most",
            )


INVARIANTS: tuple[Callable[[History], Found], ...] = (
    no_job_is_lost,
    no_job_is_doubled,
    no_event_id_is_used_twice,
    no_event_without_a_job,
    nothing_is_left,
    no_call_too_many,
    no_call_where_none_is_due,
    no_call_after_the_end,
    one_idempotency_key_per_job,
    outcomes_fit,
    counters_add_up,
    dead_letters_match,
    the_rate_is_kept,
    workers_end_as_told,
    no_call_before_its_time,
    no_call_after_its_expiry,
    no_call_while_it_is_stopped,
    who_is_cancelled_was_to_be,
    a_cancelled_job_tells_whether_it_was_called,
    who_is_cancelled_before_ends_so,
    the_trail_names_each_action,
    a_rule_gets_its_limit_at_most,
    commands_end_as_promised,
)


def violations(history: History) -> list[Violation]:
    """All violations of all invariants."""
    return [Violation(invariant.__name__, what, job) for invariant in INVARIANTS for job, what in invariant(history)]


def _is_clean(call: Call, history: History) -> bool:
    """Whether the worker must have had a final answer, unless it was lost itself."""
    if call.answer not in {"200", "403", "404"} or call.ended is None:
        return False
    is_quick = call.ended - call.at < history.attempt_timeout / 2
    return is_quick and not any(span.touches(call.at - 0.1, call.ended + 0.5) for span in history.away)


def _conflicts(history: History) -> dict[str, dict[str, str]]:
    """The outcomes of jobs that share an id, by id and key."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for key, job in history.jobs.items():
        if job.kind is Kind.CONFLICT:
            found[job.id].update((key, event.outcome) for event in history.events_of[key])
    return found
