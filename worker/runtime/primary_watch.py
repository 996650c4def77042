"""Connects anew when the sentinels have replaced the primary, before the old one says so itself.

An ordered failover promotes the replica at once, and the old primary takes writes for about ten seconds more, until a
sentinel makes it a replica of the new one. Then all that it took is lost. So a worker does not wait for its refusals.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from redis.exceptions import ReadOnlyError, RedisError

from worker.observe.loop_service import LoopService

if TYPE_CHECKING:
    from worker.broker.address_resolver import AddressResolver
    from worker.broker.client import RedisClient

logger = logging.getLogger(__name__)

#: How often the sentinels are asked, in seconds.
CHECK_SECONDS = 1.0


class PrimaryWatch(LoopService):
    """Resolves the primary's address every second, and connects anew when the worker's connections have another one.

    Args:
        resolver: asks the sentinels; all connections of the worker use it, so that none asks another sentinel.
        client: the client of the asyncio side; its ``on_useless`` lets Celery connect anew too.
    """

    def __init__(self, resolver: AddressResolver, client: RedisClient) -> None:
        super().__init__()
        self._resolver = resolver
        self._client = client

    async def _run(self) -> None:
        while True:
            try:
                await self._check()
            except (RedisError, OSError):  # who has to connect reports it
                pass
            except Exception:  # an error of ours must not end it
                logger.exception("primary_not_watched")
            await asyncio.sleep(CHECK_SECONDS)

    async def _check(self) -> None:
        primary = await self._resolver.resolve_async()
        if not self._client.has_other_address(primary):
            return
        logger.warning("primary_changed", extra={"host": primary[0], "port": primary[1]})
        await self._client.reconnect(ReadOnlyError("The sentinels name another primary."))
