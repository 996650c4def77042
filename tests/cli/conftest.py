"""The command line as a shell runs it, on one server: what differs between Redis and Valkey is the broker's to test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.server_binaries import ServerBinary, available_servers
from tests.cli.terminal import Terminal
from tests.system.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", params=["valkey"])
def server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    """The program of the server; a test may name another."""
    for binary in available_servers():
        if binary.name == request.param:
            return binary
    pytest.skip(f"there is no {request.param} server on this machine")


@pytest.fixture
def terminal(redis_url: str, tmp_path: Path) -> Terminal:
    """A shell whose REDIS_URL names the shared server, which is empty."""
    return Terminal({"REDIS_URL": redis_url}, tmp_path)


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """The same server with a sandbox API, and with workers on demand."""
    with Stage(redis_url, tmp_path) as found:
        yield found
