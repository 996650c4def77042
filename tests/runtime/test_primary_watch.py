"""A worker whose connections lead to a primary that was replaced leaves it, whenever that happened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from settings import Settings
from worker.broker.backoff import ConnectBackoff
from worker.broker.connection import async_client
from worker.broker.endpoint import Endpoint
from worker.runtime import primary_watch
from worker.runtime.primary_watch import PrimaryWatch

if TYPE_CHECKING:
    import pytest
    from redis.exceptions import ResponseError

    from worker.broker.endpoint import Address


class Named(Endpoint):
    """Names the server as it is told to."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self.now = address

    def address(self) -> Address:
        return self.now


async def test_a_failover_before_the_first_look_at_the_sentinels_is_noticed_too(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(primary_watch, "LOOK_SECONDS", 0.01)
    port = urlsplit(redis_url).port or 0
    place = Named(("127.0.0.1", port))
    told: list[ResponseError] = []
    client = async_client(Settings(REDIS_URL=SecretStr(redis_url)), ConnectBackoff(), place, on_useless=told.append)
    before = await client.execute_command("CLIENT", "ID")
    place.now = "localhost", port  # the same server by another name
    watch = PrimaryWatch(place, client)

    await watch.start()
    async with asyncio.timeout(20):
        while await client.execute_command("CLIENT", "ID") == before:  # noqa: ASYNC110 - the server tells
            await asyncio.sleep(0.01)
    for _ in range(3):  # looks after that change nothing
        await place.locate()
    await watch.stop()
    await client.disconnect()

    assert [record.msg for record in caplog.records] == ["primary_changed"]
    assert len(told) == 1
