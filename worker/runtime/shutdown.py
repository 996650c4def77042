"""How a worker stops: it lets the jobs in flight finish, releases the rest in time, and closes what is open."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker.runtime.background import Background
    from worker.runtime.executor import Executor
    from worker.runtime.fetch_loop import FetchLoop
    from worker.runtime.in_flight import InFlight

logger = logging.getLogger(__name__)

#: The share of the shutdown time kept for releasing jobs, and its bounds in seconds. Where the lower one counts, a
#: shutdown takes longer than was asked for: a job that is not released counts a crash.
_RELEASE_SHARE = 0.2
_MIN_RELEASE_SECONDS = 1.0
_MAX_RELEASE_SECONDS = 3.0
#: How often a shutdown looks whether all jobs are settled.
_POLL_SECONDS = 0.01


class Shutdown:
    """The shutdown of one worker. All methods are for the asyncio loop.

    Args:
        in_flight: the jobs in flight.
        fetching: takes the jobs.
        executor: releases the jobs that do not finish in time.
        close: closes what is open, once no job is in flight.
        stop_loop: ends the asyncio loop.
        background: runs tasks that no caller waits for.
    """

    def __init__(
        self,
        in_flight: InFlight,
        fetching: FetchLoop,
        executor: Executor,
        *,
        close: Callable[[], Awaitable[None]],
        stop_loop: Callable[[], None],
        background: Background,
    ) -> None:
        self._in_flight = in_flight
        self._fetching = fetching
        self._executor = executor
        self._close = close
        self._stop_loop = stop_loop
        self._background = background
        self._draining: asyncio.Task[None] | None = None
        self._release_at = self._end_at = math.inf
        self._is_celery_done = False

    def begin(self, seconds: float) -> None:
        """Begin to shut down, or hurry up: of several calls the one that allows least time counts."""
        now = time.monotonic()
        release_at = now + seconds - min(_MAX_RELEASE_SECONDS, seconds * _RELEASE_SHARE)
        self._release_at = min(self._release_at, release_at)
        self._end_at = min(self._end_at, max(now + seconds, release_at + _MIN_RELEASE_SECONDS))
        if self._draining is None:
            self._draining = self._background.spawn(self._drain())

    def seconds_left(self) -> float:
        """Return the seconds that the shutdown may still take."""
        return max(0.0, self._end_at - time.monotonic())

    def celery_is_done(self) -> None:
        """Let the shutdown end: Celery wants nothing more."""
        self._is_celery_done = True

    async def _drain(self) -> None:
        """Wait until no job is in flight, close what is open, and end the loop, whatever goes wrong."""
        try:
            while self._has_work():
                self._fetching.cancel_between_takes()
                if time.monotonic() >= self._release_at:
                    self._executor.cancel_all()
                await asyncio.sleep(_POLL_SECONDS)
            if len(self._in_flight):
                logger.warning("jobs_left_to_their_leases", extra={"jobs": len(self._in_flight)})
            await self._close()
        finally:
            self._stop_loop()

    def _has_work(self) -> bool:
        """Return whether Celery may still want something, or jobs are in flight or being taken and time is left."""
        if not self._is_celery_done:
            return True
        return (self._fetching.is_running or len(self._in_flight) > 0) and time.monotonic() < self._end_at


async def close_all(*closes: Callable[[], Awaitable[None]]) -> None:
    """Call all of them, one after the other; an error in one is logged, and keeps none of the others open."""
    for close in closes:
        try:
            await close()
        except Exception:  # an error of ours
            logger.exception("not_closed", extra={"what": getattr(close, "__qualname__", "")})
