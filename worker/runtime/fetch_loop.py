"""Feeds the executor: what the fetcher takes goes to it, batch by batch, until this worker takes no more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker.runtime.background import Background
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.executor import Executor
    from worker.runtime.fetcher import Fetcher
    from worker.runtime.in_flight import InFlight

logger = logging.getLogger(__name__)

_AFTER_AN_ERROR_SECONDS = 0.5


class FetchLoop:
    """Gives taken jobs to the executor.

    Args:
        fetcher: takes the jobs.
        executor: runs them.
        in_flight: the jobs in flight; the loop ends when it is closed.
        controls: what operators asked for.
        before: awaited before the first take.
        background: runs tasks that no caller waits for.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        executor: Executor,
        in_flight: InFlight,
        *,
        controls: ControlWatch,
        before: Callable[[], Awaitable[None]],
        background: Background,
    ) -> None:
        self._fetcher = fetcher
        self._executor = executor
        self._in_flight = in_flight
        self._controls = controls
        self._before = before
        self._background = background
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """True from the start until no job can be taken any more."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start to take jobs, unless that was done before."""
        if self._task is None:
            self._task = self._background.spawn(self._run())

    def cancel_between_takes(self) -> None:
        """End the loop, unless a take is in progress."""
        if self._task is not None and not self._fetcher.is_fetching:
            self._task.cancel()

    async def _run(self) -> None:
        await self._before()
        try:
            while not self._in_flight.is_closed:
                try:
                    await self._fetch_once()
                except Exception:  # an error of ours must not end the taking of jobs
                    logger.exception("take_error")
                    await asyncio.sleep(_AFTER_AN_ERROR_SECONDS)
        finally:
            self._fetcher.stop_waiting()

    async def _fetch_once(self) -> None:
        batch = await self._fetcher.fetch()
        if batch is None:
            return
        if batch.is_late:
            self._executor.release(batch.deliveries)
            return
        try:
            await self._controls.fresh()  # what the take brought news of is in force for its jobs
        except asyncio.CancelledError:
            # The worker stops. The executor does not know these jobs yet, so nobody else would release them.
            self._executor.release(batch.deliveries)
            raise
        self._executor.receive(batch.deliveries)
