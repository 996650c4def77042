"""What every test may ask for: a real Redis and a real Valkey, emptied before each test, and a sandbox API.

A test that uses ``redis_server``, ``redis_url`` or ``redis_client`` runs once on Redis and once on Valkey. A server
that this machine lacks skips its tests, but fails them where ``CI`` is ``true``.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import redis
import uvloop

from sandbox.api import SandboxApi
from sandbox.redis_server import RedisServer
from sandbox.server_binaries import ServerBinary, available_servers

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterator


# A shell that runs the suite in the background has it ignore Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests on the loop that the worker runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", params=["redis", "valkey"])
def server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    """The program of each server in turn, for tests that start, kill or configure one of their own."""
    return binary_of(request.param)


def binary_of(name: str) -> ServerBinary:
    for binary in available_servers():
        if binary.name == name:
            return binary
    sentence = f"there is no {name} server on this machine"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def redis_server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    """A running server that all tests share: leave it running, and its configuration as it is."""
    with RedisServer(server_binary) as server:
        yield server


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the shared server, which is empty."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_url(redis_server: RedisServer, redis_client: redis.Redis) -> str:  # noqa: ARG001 - it empties the server
    """The URL of the shared server, which is empty."""
    return redis_server.url


@pytest.fixture
async def sandbox_api() -> AsyncIterator[SandboxApi]:
    """A sandbox API that does nothing wrong until a test gives it a script."""
    async with SandboxApi() as api:
        yield api
