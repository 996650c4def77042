"""Reads the fleet's state every few seconds, beside the jobs, and tells it: in metrics, and in warnings.

Every pod does, so what it tells is the same from each; and so does ``lock-worker exporter``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from worker.observe import fleet_metrics
from worker.observe.loop_service import LoopService
from worker.runtime.fleet_state import FleetNames, read_fleet_state
from worker.runtime.stream_monitor import StreamMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from settings import Settings
    from worker.broker.follow_up import Pipe
    from worker.broker.stream_bounds import StreamBounds
    from worker.observe.fleet_metrics import FreshMetrics
    from worker.runtime.fleet_state import FleetState

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
#: How often it is looked whether the worker has begun.
_BEGIN_SECONDS = 0.05


class FleetWatch(LoopService):
    """Watches one fleet.

    Args:
        pipe: sends commands.
        names: what to read.
        maxlens: the most events of the results stream, and of the dead letters.
        bounds: the most bytes of them; told what the server has.
        has_begun: whether the worker takes jobs: the server was found fit before.
        on_read: called after each read.
        shown: collects the metrics; told of each read.
    """

    def __init__(
        self,
        pipe: Pipe,
        names: FleetNames,
        *,
        maxlens: tuple[int, int],
        bounds: StreamBounds,
        has_begun: Callable[[], bool] = lambda: True,
        on_read: Callable[[], None] = lambda: None,
        shown: FreshMetrics = fleet_metrics.FRESH,
    ) -> None:
        super().__init__()
        self._pipe = pipe
        self._names = names
        self._streams = StreamMonitor(maxlen=maxlens[0], bounds=bounds)
        self._maxlens = maxlens
        self._bounds = bounds
        self._has_begun = has_begun
        self._on_read = on_read
        self._shown = shown
        self._is_in_vain = False

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
                logger.warning("fleet_not_watched", extra={"error": str(error)})
            self._is_in_vain = True
        except Exception:  # an error of ours must not end it
            logger.exception("fleet_not_watched")

    async def look_once(self) -> None:
        """Look, warn, and bring the metrics up to date.

        Raises:
            RedisError: the server refused, was lost, or took too long.
            OSError: the connection was lost.
        """
        state = await read_fleet_state(self._pipe, self._names)
        self._on_read()
        self._streams.look(state.results, state.memory, state.queue.server_ms)
        self._show(state)

    def _show(self, state: FleetState) -> None:
        queue = state.queue
        for name, count in (
            ("ready", queue.ready),
            ("in_flight", queue.in_flight),
            ("delayed", queue.delayed),
            ("due", queue.due),
            ("held", queue.held),
        ):
            fleet_metrics.QUEUE_JOBS.labels(name).set(count)
        fleet_metrics.QUEUE_OLDEST_READY.set(state.oldest_ready_seconds or 0)
        fleet_metrics.QUEUE_WORKABLE.set(state.workable)
        fleet_metrics.WORKERS.set(len(state.members))
        fleet_metrics.SETTINGS_DIFFER.set(len(state.settings_differ))
        fleet_metrics.FLEET_PAUSED.labels("api").set(queue.paused_ms > 0)
        fleet_metrics.FLEET_PAUSED.labels("operator").set(queue.operators_pause_ms > 0)
        fleet_metrics.FLEET_LIMIT.set(queue.rate)
        results_max, dead_max = self._maxlens
        fleet_metrics.DEAD_LETTERS.set(state.dead.length)
        fleet_metrics.DEAD_LETTERS_MAX.set(dead_max)
        fleet_metrics.RESULTS_EVENTS.set(state.results.length)
        fleet_metrics.RESULTS_EVENTS_MAX.set(results_max)
        fleet_metrics.RESULTS_BYTES.set(state.results.held_bytes)
        fleet_metrics.RESULTS_BYTES_MAX.set(self._bounds.results_bytes)
        fleet_metrics.RESULTS_OLDEST.set(state.results_oldest_seconds or 0)
        fleet_metrics.REDIS_MEMORY_USED.set(state.memory.used)
        fleet_metrics.REDIS_MEMORY_MAX.set(state.memory.limit)
        self._shown.note_read()


def fleet_watch(
    settings: Settings,
    pipe: Pipe,
    bounds: StreamBounds,
    *,
    has_begun: Callable[[], bool] = lambda: True,
    on_read: Callable[[], None] = lambda: None,
) -> FleetWatch:
    """Return the watch of the fleet that the settings name; arguments as of :class:`FleetWatch`."""
    return FleetWatch(
        pipe,
        FleetNames.of(settings),
        maxlens=(settings.RESULTS_MAXLEN, settings.DEAD_MAXLEN),
        bounds=bounds,
        has_begun=has_begun,
        on_read=on_read,
    )
