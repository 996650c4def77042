"""Reports whether consumers keep up with the results, and whether Redis has room: metrics, and a warning in time.

Every pod looks every few seconds, beside its jobs, and reports the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from worker.broker.streams import FULL, MUCH_UNREAD, look, unread
from worker.observe import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.follow_up import Pipe
    from worker.broker.stream_bounds import StreamBounds
    from worker.broker.streams import Group, Memory, Stream
    from worker.runtime.clock import ServerClock

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
#: How often to check whether the worker takes jobs, in seconds.
_BEGIN_SECONDS = 0.05
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
    """Looks at the results stream and at the server's memory.

    Args:
        pipe: sends commands.
        results: the stream.
        maxlen: events that it keeps.
        bounds: how many bytes it keeps; gets the limit of the server's memory.
        clock: the server's clock.
        has_begun: whether the worker takes jobs: the server was found fit before.
        now: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        pipe: Pipe,
        *,
        results: str,
        maxlen: int,
        bounds: StreamBounds,
        clock: ServerClock,
        has_begun: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipe = pipe
        self._results = results
        self._maxlen = maxlen
        self._bounds = bounds
        self._clock = clock
        self._has_begun = has_begun
        self._now = now
        self._task: asyncio.Task[None] | None = None
        self._before: Stream | None = None
        self._readers: dict[str, _Reader] = {}
        self._is_nearly_full = False
        self._is_in_vain = False

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            if self._has_begun():
                await self._look()
            await asyncio.sleep(LOOK_SECONDS if self._has_begun() else _BEGIN_SECONDS)

    async def _look(self) -> None:
        """Look once, whatever comes of it."""
        try:
            await self.look_once()
            self._is_in_vain = False
        except (RedisError, OSError) as error:
            if not self._is_in_vain:  # once: the parts that need the server log that it is away
                logger.warning("streams_not_watched", extra={"error": str(error)})
            self._is_in_vain = True
        except Exception:  # an error of ours must not end it
            logger.exception("streams_not_watched")

    async def look_once(self) -> None:
        """Look, set the gauges, and log warnings."""
        stream, memory = await look(self._pipe, self._results)
        self._judge_memory(memory)
        oldest_seconds = 0.0 if stream.first is None else max(0.0, (self._clock.now_ms() - stream.first[0]) / 1000)
        metrics.RESULTS_EVENTS.set(stream.length)
        metrics.RESULTS_BYTES.set(stream.held_bytes)
        metrics.RESULTS_OLDEST.set(oldest_seconds)
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
            self._report(reader, stream, extra)
        self._readers = readers
        slowest = sorted(readers.items(), key=lambda item: -item[1].unread)[:MAX_GROUPS]
        metrics.RESULTS_GROUP_LAG.clear()
        for name, reader in reversed(slowest):  # of two with the same label, the slower one counts
            metrics.RESULTS_GROUP_LAG.labels(name[:_NAME_CHARACTERS]).set(reader.unread)

    def _report(self, reader: _Reader, stream: Stream, extra: dict[str, object]) -> None:
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
        metrics.REDIS_MEMORY_USED.set(memory.used)
        metrics.REDIS_MEMORY_LIMIT.set(memory.limit)
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
