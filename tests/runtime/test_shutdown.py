"""At the end of a worker all is closed that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.runtime.shutdown import close_all

if TYPE_CHECKING:
    import pytest


async def test_what_fails_to_close_is_logged_and_keeps_nothing_else_open(caplog: pytest.LogCaptureFixture) -> None:
    closed = []

    async def service() -> None:
        raise TypeError

    async def client() -> None:
        closed.append("client")

    await close_all(service, client)

    assert closed == ["client"]
    (record,) = caplog.records
    assert record.msg == "not_closed"
    assert record.__dict__["what"].endswith("service")
