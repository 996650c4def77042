"""``lock-worker status``: shows the state of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tasks.plural import plural
from worker.cli.exit import load_settings, redis_address, redis_or_stop
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from settings import Settings
    from worker.cli.fleet import Fleet
    from worker.cli.status.queue_stats import FleetLimit, QueueStats
    from worker.cli.status.stream_stats import GroupStats, StreamStats

_PRIORITY_NAMES = {0: "priority 0 to 2", 3: "priority 3 to 5", 6: "priority 6 to 8", 9: "priority 9"}
#: Explains the totals whose names do not.
_TOTALS = {
    "crashes": "jobs in flight when their worker was lost",
    "deduplicated": "duplicates of jobs that had ended",
    "released": "jobs released by workers that stopped",
    "vanished": "jobs whose record was deleted",
    "workers_lost": "workers whose leases expired",
}
#: The most consumer groups of a stream that are shown to people, the slowest ones; there may be any number.
_GROUPS_SHOWN = 20
_NAME_CHARACTERS = 100
_KIB, _MIB = 1024, 1024 * 1024
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def status(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False) -> None:
    """Show the state of the queue.

    Jobs ready, delayed and in flight, results, dead letters, and totals; how full the streams are, and how far their
    consumer groups have read them; and what the workers of the queue tell of themselves: their other queues, and
    settings in which they differ. It changes nothing.
    """
    from worker.broker.connection import sync_client  # noqa: PLC0415 - slow to import, and --help is quick
    from worker.cli.fleet import read_fleet  # noqa: PLC0415 - as above
    from worker.cli.status.queue_stats import read_queue_stats  # noqa: PLC0415 - as above
    from worker.cli.status.stream_stats import read_stream_stats  # noqa: PLC0415 - as above

    settings = load_settings()
    with redis_or_stop(settings), sync_client(settings) as client:
        stats = read_queue_stats(client, settings)
        streams = read_stream_stats(client, settings, stats.server_seconds)
        fleet = read_fleet(client, settings)
    if as_json:
        typer.echo(_as_json(settings, stats, streams, fleet))
    else:
        typer.echo("\n".join([*_lines(settings, stats), *_stream_lines(streams), *_fleet_lines(fleet)]))


def _as_json(settings: Settings, stats: QueueStats, streams: Sequence[StreamStats], fleet: Fleet) -> str:
    import json  # noqa: PLC0415 - only here
    from datetime import UTC, datetime  # noqa: PLC0415 - only here

    return json.dumps(
        {
            "queue": settings.LOCK_QUEUE,
            "redis": redis_address(settings),
            "time": datetime.fromtimestamp(stats.server_seconds, UTC).isoformat(),
            "ready": {
                "total": stats.ready,
                "priorities": stats.priorities,
                "arrived": stats.arrived,
                "requeued": stats.requeued,
                "retries": stats.retries,
                "suspects": stats.suspects,
                "oldest_at_most_seconds": stats.oldest_ready,
            },
            "delayed": {"total": stats.delayed, "next_due_seconds": stats.next_due},
            "in_flight": stats.in_flight,
            "paused_seconds": stats.paused,
            "limit": None
            if stats.limit is None
            else {
                "calls_per_second": stats.limit.rate,
                "by": stats.limit.by,
                "status": stats.limit.status,
            },
            "open_breakers": stats.open_breakers,
            "dead_letters": stats.dead_letters,
            "results": stats.results,
            "streams": [
                {
                    "name": stream.name,
                    "events": stream.events,
                    "bytes": stream.held_bytes,
                    "max_events": stream.max_events,
                    "max_bytes": stream.max_bytes,
                    "oldest_seconds": stream.oldest_seconds,
                    "groups": [
                        {"name": group.name, "lag": group.lag, "pending": group.pending, "near_loss": group.near_loss}
                        for group in stream.groups
                    ],
                }
                for stream in streams
            ],
            "last_maintenance_seconds": stats.last_maintenance,
            "totals": stats.totals,
            "queues": [
                {
                    "queue": one.queue,
                    "ready": one.ready,
                    "delayed": one.delayed,
                    "in_flight": one.in_flight,
                    "workers": one.workers,
                }
                for one in fleet.queues
            ],
            "workers": [
                {"name": member.node, "queues": member.queues, "settings": member.settings} for member in fleet.members
            ],
            "settings_differ": {
                setting: [{"value": value, "workers": nodes} for value, nodes in values.items()]
                for setting, values in fleet.differences.items()
            },
        }
    )


def _stream_lines(streams: Sequence[StreamStats]) -> Iterator[str]:
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


def _fleet_lines(fleet: Fleet) -> Iterator[str]:
    others = [one for one in fleet.queues[1:] if one.workers or one.ready or one.delayed or one.in_flight]
    if others:
        yield ""
        yield "Other queues of these workers:"
        for one in others:
            counts = f"{one.ready:,} ready, {one.delayed:,} delayed, {one.in_flight:,} in flight"
            yield printable(f"  {one.queue}: {counts}" + ("" if one.workers else "; no worker takes from it"))
    if fleet.differences:
        yield ""
        yield "The workers differ in settings that must be the same for all of them:"
        for setting, values in fleet.differences.items():
            settings = "; ".join(f"{value} ({', '.join(nodes)})" for value, nodes in values.items())
            yield printable(f"  {setting}: {settings}")


def _lines(settings: Settings, stats: QueueStats) -> Iterator[str]:
    yield f"Queue {settings.LOCK_QUEUE} at {redis_address(settings)}"
    yield ""
    yield _line("ready", stats.ready, _oldest(stats))
    parts = {_PRIORITY_NAMES[step]: count for step, count in stats.priorities.items()}
    parts |= {"arrived": stats.arrived, "requeued": stats.requeued, "retries": stats.retries}
    parts |= {"suspects": stats.suspects}
    for name, count in parts.items():
        if count:
            yield _line(f"  {name}", count)
    yield _line("delayed", stats.delayed, _due(stats))
    yield _line("in flight", stats.in_flight)
    yield _line("results", stats.results, settings.RESULTS_CHANNEL)
    yield _line("dead letters", stats.dead_letters, settings.DEAD_STREAM)
    yield ""
    if stats.paused is not None:
        yield f"The API asked all workers to wait; they go on in {duration(stats.paused)}."
    if stats.limit is not None:
        rate = f"{stats.limit.rate:,.2f}".rstrip("0").rstrip(".")
        yield f"All workers keep to {rate} calls a second{_refusal(stats.limit)}."
    for worker, report in stats.open_breakers.items():
        yield f"{printable(worker)} holds back: {printable(report)}"
    if stats.last_maintenance is None:
        yield "No worker has looked after this queue yet."
    else:
        yield f"A worker looked after this queue {duration(stats.last_maintenance)} ago."
    if stats.totals:
        yield ""
        yield "Since the queue was first used:"
        for name, count in stats.totals.items():
            yield _line(f"  {printable(name)}", count, _TOTALS.get(name, ""))


def _refusal(limit: FleetLimit) -> str:
    return f": the API answered {limit.status} to {printable(limit.by)}" if limit.by else ""


def _line(name: str, count: int, note: str = "") -> str:
    return f"{name:<20}{count:>12,}  {note}".rstrip()


def _oldest(stats: QueueStats) -> str:
    return "" if stats.oldest_ready is None else f"none that is new waits longer than {duration(stats.oldest_ready)}"


def _due(stats: QueueStats) -> str:
    if stats.next_due is None:
        return ""
    if stats.next_due <= 0:
        return f"the next was due {duration(-stats.next_due)} ago"
    return f"the next is due in {duration(stats.next_due)}"


def duration(seconds: float) -> str:
    """Return a time span as text for people."""
    seconds = max(0.0, seconds)
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"
