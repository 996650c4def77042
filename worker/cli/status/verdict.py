"""Judges the state of a fleet: is it well, and if not, what is wrong and what is to be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.cli.audit.law import ACKNOWLEDGED
from worker.cli.durations import duration
from worker.cli.status.condition import Problem
from worker.cli.status.rates import counted
from worker.cli.status.stream_stats import stream_stats
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from settings import Settings
    from worker.runtime.fleet_state import FleetState
    from worker.runtime.members import ApiError, Member

WELL = "well"
#: The reasons of a worker's breakers.
_API_DOWN, _TOKEN_REFUSED = "api_down", "token_refused"
#: From these shares of its bound on, Redis counts as full, and the dead letters do.
_FULL_MEMORY, _FULL_DEAD = 0.95, 0.95
#: A ready job that waits longer than this, or a due one that nobody has made ready, is a problem, in seconds.
_LONG_WAIT_SECONDS = 60.0
_OVERDUE_SECONDS = 30.0
#: No worker has maintained the queue for so long, in seconds, although some are registered.
_UNMAINTAINED_SECONDS = 15.0
#: Failures of so many seconds are told.
_RECENT_SECONDS = 300.0
_BAD_OUTCOMES = ("exhausted", "poisoned", "refused", "rejected")
#: Failures are a problem from this share of the jobs on that ended; a poisoned job is one in any case.
_MANY_FAILURES = 0.05
#: Failed calls are a problem from this share of so many calls in half a minute on, if one failed in the last seconds.
_MANY_FAILED_CALLS, _FEW_CALLS, _FRESH_SECONDS = 0.2, 20, 20.0
#: Workers register every five seconds; one that has not for so many seconds is told.
_SILENT_SECONDS = 12.0
_NAMES_SHOWN = 3


def problems(state: FleetState, settings: Settings) -> list[Problem]:
    """Return what is wrong, the worst first; nothing: the fleet is well."""
    return [
        *_of_redis(state),
        *_of_lost_records(state),
        *_of_workers(state),
        *_of_the_api(state),
        *_of_pauses(state),
        *_of_the_queue(state),
        *_of_holds(state),
        *_of_settings(state),
        *_of_streams(state, settings),
        *_of_outcomes(state),
    ]


def verdict(found: Sequence[Problem]) -> str:
    """Return the judgement in one line."""
    return f"{found[0].text} {found[0].advice}" if found else WELL


def _of_redis(state: FleetState) -> Iterator[Problem]:
    for key, kind in state.queue.wrong_keys.items():
        yield Problem(
            "key_overwritten",
            f"The key {printable(key)} holds a {kind} that lock-worker did not write.",
            "Find out who wrote it, and rename or delete the key; jobs that were under it are in your backups only.",
        )
    memory = state.memory
    if memory.limit and memory.used >= memory.limit * _FULL_MEMORY:
        share = memory.used / memory.limit
        yield Problem(
            "redis_full",
            f"Redis is full: it uses {share:.0%} of its maxmemory, and refuses new jobs.",
            "Give it more memory, or let workers drain the backlog: they go on.",
        )


def _of_lost_records(state: FleetState) -> Iterator[Problem]:
    totals = state.queue.totals
    lost = totals.get("vanished", 0) - totals.get(ACKNOWLEDGED, 0)
    if lost > 0:
        yield Problem(
            "vanished",
            f"{plural(lost, 'job')} lost their records, and will have no event: somebody deleted keys, or Redis did.",
            "Send them again, which is harmless; then lock-worker audit --acknowledge. Redis needs maxmemory-policy "
            "noeviction.",
        )


def _of_workers(state: FleetState) -> Iterator[Problem]:
    queue = state.queue
    waiting = queue.ready + queue.due + queue.in_flight
    if not state.members:
        jobs = f"{plural(waiting, 'job')} wait" if waiting != 1 else "1 job waits"
        yield Problem(
            "no_workers",
            f"No worker is registered{f', and {jobs}' if waiting else ''}.",
            "Start workers. If some run, wait 10 s, because they register again after an outage of Redis; then look at "
            "their logs.",
        )
        return
    silent = _seconds_since(state, queue.maintained_ms)
    if silent is not None and silent > _UNMAINTAINED_SECONDS:
        yield Problem(
            "not_maintained",
            f"No worker has looked after the queue for {duration(silent)}.",
            "See the workers' logs for redis_refuses: they may not write to one of the keys.",
        )
    mute = [member for member in state.members if state.server_seconds - member.registered > _SILENT_SECONDS]
    if mute:
        yield Problem(
            "worker_silent",
            f"{named(mute, state)} said nothing for "
            f"{duration(state.server_seconds - min(member.registered for member in mute))}.",
            "Killed, stalled, or cut off from Redis: see how it ended. Others take its jobs when their lease is over.",
        )


def _of_the_api(state: FleetState) -> Iterator[Problem]:
    refused, down = state.members_with_open(_TOKEN_REFUSED), state.members_with_open(_API_DOWN)
    if refused:
        yield Problem(
            "token_refused",
            f"The API refuses the token of {named(refused, state)}, for {_open_for(refused, _TOKEN_REFUSED, state)}.",
            "Put a valid token into API_TOKEN_FILE (it is read again by itself) or API_TOKEN (restart the workers). "
            "No job is lost, and none loses an attempt.",
        )
    if down:
        yield Problem(
            "api_down",
            f"The API fails for {named(down, state)}, for {_open_for(down, _API_DOWN, state)}{_last_error(down)}",
            "Look at the API, and at the network to it. The workers probe, and go on by themselves.",
        )
    if _do_calls_fail(state):
        calls, failed = state.calls
        yield Problem(
            "calls_fail",
            f"{failed:,} of the last {calls:,} calls failed, in half a minute{_last_error(state.members)}",
            "Look at the API, and at the network to it. Each failed call costs its job an attempt, and a slot until it "
            "ends.",
        )


def _of_pauses(state: FleetState) -> Iterator[Problem]:
    pause = state.controls.pause
    if state.queue.operators_pause_ms > 0 and pause is not None:
        until = f"for another {duration(state.queue.operators_pause_ms / 1000)}" if pause.until_ms else "until resumed"
        yield Problem(
            "paused_by_operator",
            f"{printable(pause.by)} paused the fleet {until}: {printable(pause.reason)}",
            "lock-worker resume lets it go on.",
        )
    if state.queue.paused_ms > 0:
        why = printable(state.queue.paused_why) or "the API asked for it"
        yield Problem(
            "paused",
            f"The fleet takes no jobs for another {duration(state.queue.paused_ms / 1000)}: {why}.",
            "It goes on by itself, and more slowly. If that happens again and again, ask for a higher quota, or let "
            "RATE_LIMIT_PER_SECOND keep to this one.",
        )
    elif state.limit is not None and state.is_rate_bound:
        by = f" (the API answered {state.limit.status} to {printable(state.limit.by)})" if state.limit.by else ""
        yield Problem(
            "limited",
            f"The API's refusals hold the fleet to {state.limit.rate:.3g} calls a second{by}, and jobs wait for that.",
            "More workers do not help; ask for a higher quota. The rate rises by itself as the API accepts it.",
        )


def _do_calls_fail(state: FleetState) -> bool:
    """Return True if many calls fail, although no breaker is open, because others succeed."""
    calls, failed = state.calls
    errors = (member.activity.last_error for member in state.members)
    newest = max((error.at for error in errors if error is not None), default=0.0)
    is_fresh = state.server_seconds - newest < _FRESH_SECONDS
    is_told = any(member.activity.breakers for member in state.members)
    return calls >= _FEW_CALLS and failed >= calls * _MANY_FAILED_CALLS and is_fresh and not is_told


def _of_the_queue(state: FleetState) -> Iterator[Problem]:
    queue = state.queue
    oldest = state.oldest_ready_seconds
    if state.members and queue.ready and oldest is not None and oldest > _LONG_WAIT_SECONDS and state.workable:
        slots = f"{queue.in_flight:,} of {state.slots:,} slots are in use"
        yield Problem(
            "slow",
            f"{plural(queue.ready, 'job')} wait, the oldest for {duration(oldest)}; {slots}.",
            "Failing calls hold the slots that these jobs wait for."
            if _do_calls_fail(state)
            else "Add workers, or raise CONCURRENCY if the API allows more calls at once.",
        )
    overdue = _seconds_since(state, queue.first_due_ms)
    if queue.due and overdue is not None and overdue > _OVERDUE_SECONDS and state.members:
        yield Problem(
            "overdue",
            f"{plural(queue.due, 'delayed job')} are overdue, the first for {duration(overdue)}.",
            "See the workers' logs for redis_refuses or maintenance_failed.",
        )


def _of_holds(state: FleetState) -> Iterator[Problem]:
    for hold in state.holds:
        held = state.queue.held_by.get(hold.selector.digest, 0)
        what = printable(str(hold.selector))
        yield Problem(
            "held",
            f"{plural(held, 'job')} on hold ({what}), by {printable(hold.note.by)}: {printable(hold.note.reason)}",
            f"To let them go on: lock-worker release {what}",
        )


def _of_settings(state: FleetState) -> Iterator[Problem]:
    if state.settings_differ:
        names = ", ".join(state.settings_differ)
        yield Problem(
            "settings_differ",
            f"Workers differ in settings that must be the same for all of them: {names}.",
            "A rollout may be under way; otherwise give all workers the same values (see below who has which).",
        )


def _of_streams(state: FleetState, settings: Settings) -> Iterator[Problem]:
    results, dead = stream_stats(state, settings)
    for group in results.groups:
        if group.near_loss:
            yield Problem(
                "results_unread",
                f"The consumer group {printable(group.name[:60])} is about to lose events: {group.lag:,} of "
                f"{results.events:,} are unread, and the results stream is full.",
                "Let its consumers catch up, or raise RESULTS_MAXLEN and RESULTS_MAX_BYTES.",
            )
    if dead.events >= dead.max_events * _FULL_DEAD or dead.held_bytes >= dead.max_bytes * _FULL_DEAD:
        yield Problem(
            "dead_letters_full",
            f"The dead letters are full ({dead.events:,}): each further one pushes out the oldest.",
            "Look at them and replay them (lock-worker replay), or raise DEAD_MAXLEN and DEAD_MAX_BYTES.",
        )


def _of_outcomes(state: FleetState) -> Iterator[Problem]:
    ended = counted(state.queue, "finished", _RECENT_SECONDS)
    bad = {name: count for name in _BAD_OUTCOMES if (count := counted(state.queue, f"outcome:{name}", _RECENT_SECONDS))}
    if bad.get("poisoned") or sum(bad.values()) > ended * _MANY_FAILURES:
        told = ", ".join(f"{count:,} {name}" for name, count in bad.items())
        yield Problem(
            "jobs_fail",
            f"{sum(bad.values()):,} of the last {ended:,} jobs failed, in five minutes: {told}.",
            "Each left a dead letter that says why: lock-worker dead.",
        )


def named(found: Sequence[Member], state: FleetState) -> str:
    """Name some of the workers of a fleet."""
    if len(found) == len(state.members):
        return "the only worker" if len(found) == 1 else f"all {len(found)} workers"
    names = ", ".join(printable(member.title) for member in found[:_NAMES_SHOWN])
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return f"{names}{more} ({len(found)} of {len(state.members)} workers)"


def _open_for(found: Sequence[Member], reason: str, state: FleetState) -> str:
    since = min(breaker.since for member in found for breaker in member.activity.breakers if breaker.reason == reason)
    return duration(state.server_seconds - since)


def _last_error(found: Sequence[Member]) -> str:
    errors: list[ApiError] = [member.activity.last_error for member in found if member.activity.last_error is not None]
    if not errors:
        return "."
    return f": {printable(max(errors, key=lambda error: error.at).text)}"


def _seconds_since(state: FleetState, at_ms: float | None) -> float | None:
    return None if at_ms is None else (state.queue.server_ms - at_ms) / 1000
