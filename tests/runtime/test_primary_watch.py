"""A worker whose connections lead to a primary that was replaced leaves it, whenever that happened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from settings import Settings
from worker.broker.address_resolver import AddressResolver
from worker.broker.backoff import ConnectBackoff
from worker.broker.connection import async_client
from worker.runtime import primary_watch
from worker.runtime.primary_watch import PrimaryWatch

if TYPE_CHECKING:
    import pytest
    from redis.exceptions import ResponseError

    from worker.broker.address_resolver import Address


class Told(AddressResolver):
    """Resolves to the address that it was given last."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self.now = address

    def resolve(self) -> Address:
        return self.now


async def test_a_failover_before_the_first_look_at_the_sentinels_is_noticed_too(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(primary_watch, "CHECK_SECONDS", 0.01)
    port = urlsplit(redis_url).port or 0
    resolver = Told(("127.0.0.1", port))
    told: list[ResponseError] = []
    client = async_client(Settings(REDIS_URL=SecretStr(redis_url)), ConnectBackoff(), resolver, on_useless=told.append)
    before = await client.execute_command("CLIENT", "ID")
    resolver.now = "localhost", port  # the same server by another name
    watch = PrimaryWatch(resolver, client)

    await watch.start()
    async with asyncio.timeout(20):
        while await client.execute_command("CLIENT", "ID") == before:  # noqa: ASYNC110 - the server tells
            await asyncio.sleep(0.01)
    for _ in range(3):  # looks after that change nothing
        await resolver.resolve_async()
    await watch.stop()
    await client.disconnect()

    assert [record.msg for record in caplog.records] == ["primary_changed"]
    assert len(told) == 1
