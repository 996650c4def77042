"""Tells how full the results stream and the dead stream are, and how far their consumer groups have read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.broker.stream_bounds import StreamBounds
from worker.broker.streams import FULL, MUCH_UNREAD, unread

if TYPE_CHECKING:
    from settings import Settings
    from worker.broker.streams import Stream
    from worker.runtime.fleet_state import FleetState


@dataclass(frozen=True, slots=True)
class GroupStats:
    """A consumer group.

    Attributes:
        name: its name.
        lag: the events in the stream not delivered to it yet.
        pending: the events delivered to it and not acknowledged.
        near_loss: the next new events will trim events that were not delivered to it yet.
    """

    name: str
    lag: int
    pending: int
    near_loss: bool


@dataclass(frozen=True, slots=True)
class StreamStats:
    """A stream.

    Attributes:
        name: its key.
        events: the events in it.
        held_bytes: the memory it takes, approximately.
        max_events: its bound in events, by the settings of this process.
        max_bytes: its bound in bytes, by the settings and the memory of the server.
        oldest_seconds: the age of the oldest event; None: there is none.
        groups: its consumer groups, the slowest first.
    """

    name: str
    events: int
    held_bytes: int
    max_events: int
    max_bytes: int
    oldest_seconds: float | None
    groups: tuple[GroupStats, ...]


def stream_stats(state: FleetState, settings: Settings) -> tuple[StreamStats, StreamStats]:
    """Return how full the results stream and the dead stream are."""
    bounds = StreamBounds(settings.RESULTS_MAX_BYTES, settings.DEAD_MAX_BYTES, state.memory.limit)
    now = state.server_seconds
    return (
        _stats(settings.RESULTS_CHANNEL, state.results, settings.RESULTS_MAXLEN, bounds.results_bytes, now),
        _stats(settings.DEAD_STREAM, state.dead, settings.DEAD_MAXLEN, bounds.dead_bytes, now),
    )


def _stats(name: str, stream: Stream, max_events: int, max_bytes: int, server_seconds: float) -> StreamStats:
    is_full = stream.length >= max_events * FULL or stream.held_bytes >= max_bytes * FULL
    groups = []
    for group in stream.groups:
        lag = unread(group, stream)
        groups.append(
            GroupStats(group.name, lag, group.pending, is_full and lag >= max(1, stream.length * MUCH_UNREAD))
        )
    return StreamStats(
        name=name,
        events=stream.length,
        held_bytes=stream.held_bytes,
        max_events=max_events,
        max_bytes=max_bytes,
        oldest_seconds=None if stream.first is None else max(0.0, server_seconds - stream.first[0] / 1000),
        groups=tuple(sorted(groups, key=lambda group: (-group.lag, -group.pending, group.name))),
    )
