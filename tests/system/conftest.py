"""A stage for each test: the shared Redis, emptied, a sandbox API of its own, and workers on demand.

The broker's tests run on Redis and on Valkey; of a whole worker only the end-to-end tests do, all others take the
server that is always there.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from sandbox.server_binaries import ServerBinary, available_servers
from tests.system.pair import Pair
from tests.system.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.redis_server import RedisServer


@pytest.fixture(scope="session", params=["valkey"])
def server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    """The program of the server; a module may name others."""
    return next(binary for binary in available_servers() if binary.name == request.param)


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """A system without a worker yet."""
    with Stage(redis_url, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def module_stage(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A system that all tests of a module share; the module's ``stage`` may be this one."""
    with Stage(redis_server.url, tmp_path_factory.mktemp("stage")) as found:
        found.redis.flushall()
        yield found


@pytest.fixture
def pair(server_binary: ServerBinary, tmp_path: Path) -> Iterator[Pair]:
    """A primary with a replica, and a way to let the one fail over to the other."""
    with ExitStack() as stack:
        yield Pair(server_binary, tmp_path, stack)
