"""A queue on a real server, as the broker's tests have it, and waits that take no time."""

from __future__ import annotations

import pytest

from tests.broker.conftest import bench

__all__ = ["bench"]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were made, each over at once."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    return made
