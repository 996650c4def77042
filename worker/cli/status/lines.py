"""``lock-worker status`` for people: whether it is well, then the jobs, the fleet, the workers, the streams."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.cli.durations import duration
from worker.cli.exit import redis_address
from worker.cli.status.as_json import RATES_SECONDS
from worker.cli.status.other_queues import in_use
from worker.cli.status.rates import counted, per_second
from worker.cli.status.verdict import WELL
from worker.cli.worker_view import worker_lines
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from worker.cli.status.condition import Condition
    from worker.cli.status.report import Report
    from worker.cli.status.stream_stats import GroupStats, StreamStats
    from worker.runtime.fleet_state import FleetLimit, FleetState

_PRIORITY_NAMES = {0: "priority 0 to 2", 3: "priority 3 to 5", 6: "priority 6 to 8", 9: "priority 9"}
#: Explains the totals whose names do not.
_TOTALS = {
    "crashes": "jobs in flight when their worker was lost",
    "deduplicated": "duplicates of jobs that had ended",
    "released": "jobs released by workers that stopped",
    "vanished": "jobs whose record was deleted",
    "vanished_acknowledged": "those that an operator acknowledged",
    "workers_lost": "workers whose leases expired",
}
#: The most workers, and consumer groups of a stream, that are shown to people; there may be any number.
_WORKERS_SHOWN = 20
_GROUPS_SHOWN = 20
#: The workers that are named for each value of a setting in which they differ.
_NAMES_SHOWN = 3
_NAME_CHARACTERS = 100
_KIB, _MIB = 1024, 1024 * 1024
_FEW = 10


def lines(report: Report, width: int) -> list[str]:
    """Return the report as lines for people; running text is wrapped to the width of the terminal."""
    state, settings = report.state, report.settings
    return [
        *_verdict_lines(report, width),
        "",
        f"Queue {settings.LOCK_QUEUE} at {redis_address(settings)}",
        *_job_lines(report),
        *_rate_lines(state),
        "",
        *(line for told in _fleet_lines(report) for line in _wrapped(told, width, indent="  ")),
        *_worker_lines(state, width),
        *_queue_lines(report),
        *_setting_lines(state, width),
        *_stream_lines(report.streams),
        *_total_lines(state.queue.totals),
    ]


def _verdict_lines(report: Report, width: int) -> Iterator[str]:
    if not report.problems:
        yield WELL
    for problem in report.problems:
        yield from _condition_lines("NOT WELL", problem, width)
    for note in report.notes:
        yield from _condition_lines("NOTE", note, width)


def _condition_lines(what: str, one: Condition, width: int) -> Iterator[str]:
    yield from _wrapped(f"{what}: {one.text}", width, indent="  ")
    yield from _wrapped(f"  -> {one.advice}", width, indent="     ")


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _job_lines(report: Report) -> Iterator[str]:
    state, queue = report.state, report.state.queue
    yield _line("ready", queue.ready, _oldest(state))
    parts = {_PRIORITY_NAMES[step]: count for step, count in queue.priorities.items()}
    parts |= {"arrived": queue.arrived, "requeued": queue.requeued, "retries": queue.retries}
    parts |= {"suspects": queue.suspects}
    for name, count in parts.items():
        if count:
            yield _line(f"  {name}", count)
    yield _line("delayed", queue.delayed + queue.due, _due(state))
    if queue.held or state.holds:
        yield _line("held", queue.held, "lock-worker holds")
    yield _line("in flight", queue.in_flight, f"of {state.slots:,} slots" if state.members else "")
    yield _line("results", state.results.length, report.settings.RESULTS_CHANNEL)
    yield _line("dead letters", state.dead.length, report.settings.DEAD_STREAM)


def _rate_lines(state: FleetState) -> Iterator[str]:
    names = {name: counted(state.queue, name, RATES_SECONDS[-1]) for name in state.queue.totals}
    shown = ["taken", *(name for name in names if name.startswith("outcome:") and names[name])]
    if not state.queue.samples:
        return
    yield ""
    yield f"{'Per second':<20}{'1 min':>12}{'5 min':>12}"
    for name in shown:
        rates = "".join(f"{_rate(per_second(state.queue, name, seconds)):>12}" for seconds in RATES_SECONDS)
        yield f"  {printable(name.removeprefix('outcome:')):<18}{rates}"


def _rate(rate: float | None) -> str:
    if rate is None:
        return "?"
    return f"{rate:,.0f}" if rate >= _FEW else f"{rate:.2f}"


def _fleet_lines(report: Report) -> Iterator[str]:
    state = report.state
    calls, failed = state.calls
    if calls:
        yield f"{plural(calls, 'call')} of the API in the last half minute, {failed:,} failed."
    if state.queue.paused_ms:
        yield f"The API asked all workers to wait; they go on in {duration(state.queue.paused_ms / 1000)}."
    if state.limit is not None:
        rate = f"{state.limit.rate:,.2f}".rstrip("0").rstrip(".")
        yield f"All workers keep to {rate} calls a second{_refusal(state.limit)}."
    if report.last_maintenance_seconds is None:
        yield "No worker has looked after this queue yet."
    else:
        ago = duration(report.last_maintenance_seconds)
        yield f"A worker looked after this queue (due jobs, jobs of lost workers) {ago} ago."


def _refusal(limit: FleetLimit) -> str:
    return f": the API answered {limit.status} to {printable(limit.by)}" if limit.by else ""


def _worker_lines(state: FleetState, width: int) -> Iterator[str]:
    if not state.members:
        return
    yield ""
    yield f"Workers ({len(state.members)}):"
    # Those in trouble first, so that they are among those that are shown.
    members = sorted(state.members, key=lambda member: not member.activity.breakers)
    for member in members[:_WORKERS_SHOWN]:
        for line in worker_lines(member, state.server_seconds):
            yield from _wrapped(line, width, indent="      ")
    more = len(members) - _WORKERS_SHOWN
    if more > 0:
        yield f"  and {plural(more, 'worker')} more: lock-worker workers"


def _queue_lines(report: Report) -> Iterator[str]:
    others = in_use(report.queues)
    if others:
        yield ""
        yield "Other queues of these workers:"
        for one in others:
            counts = f"{one.ready:,} ready, {one.delayed:,} delayed, {one.in_flight:,} in flight"
            yield printable(f"  {one.queue}: {counts}" + ("" if one.workers else "; no worker takes from it"))


def _setting_lines(state: FleetState, width: int) -> Iterator[str]:
    if state.settings_differ:
        yield ""
        yield "The workers differ in settings that must be the same for all of them:"
        for setting, values in state.settings_differ.items():
            told = "; ".join(f"{value} ({_names(names)})" for value, names in values.items())
            yield from _wrapped(printable(f"  {setting}: {told}"), width, indent="      ")


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _stream_lines(streams: Iterable[StreamStats]) -> Iterator[str]:
    yield ""
    yield "Streams:"
    for stream in streams:
        events = f"{stream.events:,} of {stream.max_events:,} events"
        yield printable(f"  {stream.name}: {events}, {_size(stream.held_bytes)} of {_size(stream.max_bytes)}")
        if stream.oldest_seconds is not None:
            yield f"    the oldest is {duration(stream.oldest_seconds)} old"
        for group in stream.groups[:_GROUPS_SHOWN]:
            yield from _group_lines(stream, group)
        more = len(stream.groups) - _GROUPS_SHOWN
        if more > 0:
            yield f"    and {plural(more, 'group')} more, which have read more of it"


def _group_lines(stream: StreamStats, group: GroupStats) -> Iterator[str]:
    yield printable(f"    group {group.name[:_NAME_CHARACTERS]}: lag {group.lag:,}, pending {group.pending:,}")
    if group.near_loss:
        yield f"      WARNING: {group.lag:,} of {stream.events:,} events are unread, and the stream is full:"
        yield "      the next ones push them out. Let its consumers catch up."


def _size(count: int) -> str:
    """Return a number of bytes as text for people."""
    return f"{count / _MIB:,.1f} MiB" if count >= _MIB else f"{count / _KIB:,.1f} KiB"


def _total_lines(totals: Mapping[str, int]) -> Iterator[str]:
    if totals:
        yield ""
        yield "Since the queue was first used:"
        for name, count in totals.items():
            shown = name.replace("outcome:", "ended as ", 1)
            yield _line(f"  {printable(shown)}", count, _TOTALS.get(name, ""))


def _line(name: str, count: int, note: str = "") -> str:
    return f"{name:<20}{count:>12,}  {note}".rstrip()


def _oldest(state: FleetState) -> str:
    oldest = state.oldest_ready_seconds
    return "" if oldest is None else f"new ones wait for up to {duration(oldest)}"


def _due(state: FleetState) -> str:
    queue = state.queue
    if queue.first_due_ms is None:
        return ""
    seconds = (queue.first_due_ms - queue.server_ms) / 1000
    if queue.due:
        return f"{queue.due:,} of them due, the first for {duration(-seconds)}"
    return f"the next is due in {duration(seconds)}"
