"""A queue on each server for each test, and after each test a look at what must always hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis

from sandbox.redis_server import RedisServer
from tests.broker.workbench import Workbench, link_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sandbox.server_binaries import ServerBinary


@pytest.fixture(scope="session")
def redis_server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    """This folder's own server: its tests fill it up, demote it, and give it users."""
    with RedisServer(server_binary) as server:
        yield server


@pytest.fixture
async def bench(redis_url: str, redis_client: Redis) -> AsyncIterator[Workbench]:
    """A queue that no test of this folder leaves in a state that breaks a promise."""
    assert redis_client.keys() == []
    link = link_to(redis_url, timeout_seconds=5)
    with Redis.from_url(redis_url, protocol=2) as client:
        bench = Workbench(client, link)
        yield bench
        assert list(bench.troubles()) == []
    await link.disconnect()


@pytest.fixture
def overwritten(bench: Workbench) -> Iterator[None]:
    """The test writes what no worker would; so there is nothing to be looked at after it."""
    yield
    bench.client.flushdb()
