"""Warns in time when consumers do not keep up with the results, and when Redis has little room."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.broker.streams import FULL, MUCH_UNREAD, unread
from worker.observe import fleet_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.stream_bounds import StreamBounds
    from worker.broker.streams import Group, Memory, Stream

logger = logging.getLogger(__name__)

#: Groups that have a series of their own, the slowest ones: consumers make them, and any number.
MAX_GROUPS = 20
_NAME_CHARACTERS = 100
#: A group keeps up again once less than this share of the stream is unread, so that it is warned of anew after that.
_KEEPS_UP = 0.5
#: The same for the server's memory.
_NEARLY_FULL = 0.8
_HAS_ROOM = 0.7
#: A group that goes on losing events is logged again after so many seconds.
_AGAIN_SECONDS = 3600.0


@dataclass(slots=True)
class _Reader:
    """What is remembered of a group.

    Attributes:
        unread: events in the stream that it has not read.
        miscounted: how much too high Redis counts its lag, as seen when the group had read all.
        missed: by how much its lag was beyond what the stream holds, as far as that was noted.
        lost: events that it can read no more, and that were not logged yet.
        logged_at: when a loss was logged last, on the monotonic clock.
        is_behind: it was logged that the group is near to a loss.
    """

    unread: int = 0
    miscounted: int = 0
    missed: int = 0
    lost: int = 0
    logged_at: float | None = None
    is_behind: bool = False

    def update(self, group: Group, stream: Stream, before: Stream | None) -> None:
        """Note how the group stands; ``before`` is the stream when this group was last looked at, None: it is new."""
        if stream.first is None or group.last_delivered >= stream.last:
            self.miscounted = self.missed = group.lag or 0
        elif group.last_delivered < stream.first:
            missed = max(self.missed, (group.lag or 0) - stream.length)
            self.lost += max(missed - self.missed, _surely_lost(group, stream, before))
            self.missed = missed
        self.unread = unread(group, stream, self.miscounted)


def _surely_lost(group: Group, stream: Stream, before: Stream | None) -> int:
    """Return how many events, trimmed since the last look, the group has surely not read: Redis does not say."""
    if before is None:
        return 0
    gone = stream.gone - before.gone
    if before.first is not None and group.last_delivered < before.first:
        return max(0, gone)
    return max(0, gone - before.length) if group.last_delivered <= before.last else 0


class StreamMonitor:
    """Judges the results stream and the server's memory each time they were read.

    Args:
        maxlen: events that the stream keeps.
        bounds: how many bytes it keeps; gets the limit of the server's memory.
        now: the monotonic clock, in seconds.
    """

    def __init__(self, *, maxlen: int, bounds: StreamBounds, now: Callable[[], float] = time.monotonic) -> None:
        self._maxlen = maxlen
        self._bounds = bounds
        self._now = now
        self._before: Stream | None = None
        self._readers: dict[str, _Reader] = {}
        self._is_nearly_full = False

    def look(self, stream: Stream, memory: Memory, server_ms: float) -> None:
        """Note how the stream and the server's memory are now, and warn."""
        self._judge_memory(memory)
        oldest_seconds = 0.0 if stream.first is None else max(0.0, (server_ms - stream.first[0]) / 1000)
        self._judge_groups(stream, oldest_seconds)
        self._before = stream

    def _judge_groups(self, stream: Stream, oldest_seconds: float) -> None:
        readers = {}
        for group in stream.groups:
            known = self._readers.get(group.name)
            reader = readers[group.name] = known or _Reader()
            reader.update(group, stream, None if known is None else self._before)
            extra = {
                "group": group.name[:_NAME_CHARACTERS],
                "unread": reader.unread,
                "oldest_seconds": round(oldest_seconds, 1),
            }
            self._tell_of(reader, stream, extra)
        self._readers = readers
        slowest = sorted(readers.items(), key=lambda item: -item[1].unread)[:MAX_GROUPS]
        fleet_metrics.RESULTS_GROUP_LAG.clear()
        for name, reader in reversed(slowest):  # of two with the same label, the slower one counts
            fleet_metrics.RESULTS_GROUP_LAG.labels(name[:_NAME_CHARACTERS]).set(reader.unread)

    def _tell_of(self, reader: _Reader, stream: Stream, extra: dict[str, object]) -> None:
        if reader.lost and (reader.logged_at is None or self._now() - reader.logged_at >= _AGAIN_SECONDS):
            logger.warning("results_trimmed_unread", extra={**extra, "events": reader.lost})
            reader.lost, reader.logged_at, reader.is_behind = 0, self._now(), True
        elif reader.unread < stream.length * _KEEPS_UP:
            reader.is_behind = False
        elif not reader.is_behind and self._is_full(stream) and reader.unread >= stream.length * MUCH_UNREAD:
            reader.is_behind = True
            logger.warning("results_nearly_trimmed_unread", extra=extra)

    def _is_full(self, stream: Stream) -> bool:
        return (
            stream.length >= self._maxlen * FULL
            or stream.held_bytes >= self._bounds.results_bytes * FULL
            or (self._before is not None and stream.gone > self._before.gone)
        )

    def _judge_memory(self, memory: Memory) -> None:
        if memory.limit != self._bounds.maxmemory:
            self._bounds.maxmemory = memory.limit
            if self._bounds.are_lowered:
                logger.warning(
                    "streams_bounded_by_memory",
                    extra={
                        "maxmemory": memory.limit,
                        "results_max_bytes": self._bounds.results_bytes,
                        "dead_max_bytes": self._bounds.dead_bytes,
                        "advice": "Give Redis more memory, or set RESULTS_MAX_BYTES and DEAD_MAX_BYTES to less.",
                    },
                )
        if memory.used < memory.limit * _HAS_ROOM or not memory.limit:
            self._is_nearly_full = False
        elif memory.used >= memory.limit * _NEARLY_FULL and not self._is_nearly_full:
            self._is_nearly_full = True
            logger.warning(
                "redis_nearly_full",
                extra={
                    "used_bytes": memory.used,
                    "maxmemory": memory.limit,
                    "advice": "When it is full, Redis refuses new jobs. See what takes the room: the backlog, or "
                    "results and dead letters (RESULTS_MAX_BYTES, DEAD_MAX_BYTES).",
                },
            )
