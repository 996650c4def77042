"""Leaves a primary that the sentinels have replaced, before it says so itself.

An ordered failover promotes the replica at once, and the old primary takes writes for about ten seconds more, until a
sentinel makes it a replica of the new one. Then all that it took is lost. So a worker does not wait for its refusals.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from redis.exceptions import ReadOnlyError, RedisError

if TYPE_CHECKING:
    from worker.broker.client import RedisClient
    from worker.broker.endpoint import Endpoint

logger = logging.getLogger(__name__)

#: How often the sentinels are asked, in seconds.
LOOK_SECONDS = 1.0


class PrimaryWatch:
    """Asks the sentinels who is the primary, and lets the worker connect anew when its connections lead elsewhere.

    Args:
        endpoint: asks them; all connections of the worker go by it, so that none asks another sentinel than the watch.
        client: the client of the asyncio side; its ``on_useless`` lets Celery connect anew too.
    """

    def __init__(self, endpoint: Endpoint, client: RedisClient) -> None:
        self._endpoint = endpoint
        self._client = client
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except (RedisError, OSError):  # who has to connect reports it
                pass
            except Exception:  # an error of ours must not end it
                logger.exception("primary_not_watched")
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        primary = await self._endpoint.locate()
        if not self._client.is_elsewhere(primary):
            return
        logger.warning("primary_changed", extra={"host": primary[0], "port": primary[1]})
        await self._client.leave(ReadOnlyError("The sentinels name another primary."))
