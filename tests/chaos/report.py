"""What a round's report says, for people: what was done, what came of it, and each violation with its job's history."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from tests.chaos.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.history import Failover, History
    from tests.chaos.invariants import Violation
    from tests.chaos.plan import Plan
    from tests.chaos.round import Outcome

_SHOWN = 10
_LOG_LINES = 20


def say(text: str) -> None:
    """Print it now, though the output may be a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def command(plan: Plan, *, kills_only: bool = False, redis_only: bool = False, beside_older: bool = False) -> str:
    """What replays a round."""
    options = " --beside-older" if beside_older else ""
    options += f" --target {plan.target}" if plan.target != "lock-worker" else " --kills-only" if kills_only else ""
    options += f" --topology {plan.topology}" if plan.topology != "single" else ""
    options += " --redis-only" if redis_only else ""
    return f"python -m tests.chaos --rounds 1 --seconds {plan.seconds:g} --seed {plan.seed}{options}"


def headline(plan: Plan) -> str:
    """What a round is going to do."""
    limit = "" if plan.rate_limit is None else f", {plan.rate_limit:g} calls/s at most"
    limit += "" if plan.quota is None else f", a quota of {plan.quota} calls/s"
    limit += "" if plan.rule_limit is None else f", {plan.rule_limit} jobs a rule"
    return (
        f"seed {plan.seed}: {plan.pods} workers of {plan.target} with {plan.concurrency} slots on {plan.server} "
        f"({plan.topology}), {len(plan.jobs)} jobs, {len(plan.faults)} faults in {plan.seconds:g} s, "
        f"API median {plan.api_median_ms:g} ms{limit}"
    )


def report(outcome: Outcome) -> str:
    """A round's report."""
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    history = outcome.history
    yield f"  faults    {_counts(Counter(fault.act.value for fault in outcome.plan.faults))}"
    if history.steered:
        obeyed = sum(each.obeyed is not None for each in history.steered)
        yield (
            f"  operators {_counts(Counter(each.steer.action.value for each in history.steered))}; {obeyed} of "
            f"{len(history.steered)} seen to be obeyed; rules held by their limit: {len(history.held_rules)} times"
        )
    yield f"  workers   {outcome.started} processes; {len(history.losses)} losses, {_in_flight(history)} jobs in flight"
    sent = {message.job for message in history.messages if message.is_sure}
    perhaps = {message.job for message in history.messages} - sent
    yield (
        f"  jobs      {len(sent)} sent for sure, {len(perhaps)} perhaps, in {len(history.messages)} messages; "
        f"{len(history.events)} events: {_counts(Counter(event.outcome for event in history.events))}"
    )
    waits = _waits_of_good_jobs(history)
    if waits:
        p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        yield f"  good jobs {p50:.2f} s from sent to event at p50, {p99:.2f} s at p99"
    yield f"  calls     {len(history.calls)}: {_counts(Counter(call.answer for call in history.calls))}"
    if history.counters is not None:
        names = ("taken", "finished", "deduplicated", "delayed", "held", "released", "crashes")
        yield f"  counters  {', '.join(f'{history.counters.get(name, 0)} {name}' for name in names)}"
    yield from (f"  Redis     {_failover(history, each)}" for each in history.failovers)
    late = max((span.end - span.begin for span in history.late), default=0.0)
    phases = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in outcome.phases.items())
    yield f"  time      {phases}; the API's own loop was late by {late:.2f} s at most"
    lost = sum(1 for each in outcome.violations if each.invariant == "no_job_is_lost")
    doubled = sum(1 for each in outcome.violations if each.invariant == "no_job_is_doubled")
    yield f"  verdict   {lost} lost, {doubled} doubled, {len(outcome.violations)} violations"
    for violation in outcome.violations[:_SHOWN]:
        yield from _violation(violation, history, outcome.folder)
    if len(outcome.violations) > _SHOWN:
        yield f"  ... and {len(outcome.violations) - _SHOWN} more"


def _failover(history: History, failover: Failover) -> str:
    forgotten = {
        "jobs that the old primary alone had acknowledged": history.forgotten_in(failover, had_replica=False),
        "jobs that a replica of it had too": history.forgotten_in(failover, had_replica=True),
        "events that it had published": history.forgotten_events(failover),
    }
    told = _counts({what: count for what, count in forgotten.items() if count})
    without = f"{failover.how}: at most {history.seconds_without_event(failover):.1f} s without an event"
    return f"{without}; forgotten: {told}" if told else without


def _violation(violation: Violation, history: History, folder: Path) -> Iterator[str]:
    yield f"  ! {violation.invariant}: {f'{violation.job}: ' if violation.job else ''}{violation.what}"
    if violation.job is None:
        return
    for line in history.lines_of(violation.job):
        yield f"      {line}"
    job = history.jobs[violation.job]
    for line in list(_log_lines(folder, job.id))[:_LOG_LINES]:
        yield f"      {line}"


def _log_lines(folder: Path, job_id: str) -> Iterator[str]:
    for log in sorted(folder.glob("pod-*.log")):
        for line in log.read_text("utf-8", "replace").splitlines():
            if job_id in line:
                yield f"{log.name}: {line[:300]}"


def _in_flight(history: History) -> str:
    known = sum(len(loss.jobs) for loss in history.losses if loss.jobs is not None)
    unknown = sum(1 for loss in history.losses if loss.jobs is None)
    return f"{known}{f' and those of {unknown} that nobody knows' if unknown else ''}"


def _waits_of_good_jobs(history: History) -> list[float]:
    """Seconds from a job's first message, or its countdown's end, to its event, the shortest first."""
    return sorted(
        min(event.at for event in history.events_of[key])
        - min(message.ended for message in history.messages_of[key])
        - job.countdown
        for key, job in history.jobs.items()
        if job.kind is Kind.GOOD and history.events_of[key] and history.messages_of[key]
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))
