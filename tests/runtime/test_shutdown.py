"""At the end of a worker its jobs are released, and all is closed that is open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from worker.broker.records import Delivery
from worker.runtime.background import Background
from worker.runtime.in_flight import InFlight
from worker.runtime.shutdown import Shutdown, close_all

if TYPE_CHECKING:
    import pytest


class NoFetching:
    """Jobs are taken no more."""

    is_running = False

    def cancel_between_takes(self) -> None:
        pass


class ReleasingExecutor:
    """Releases a job once it is told to, as soon as Redis has answered that."""

    def __init__(self, in_flight: InFlight, delivery: Delivery) -> None:
        self._in_flight = in_flight
        self._delivery = delivery

    def cancel_all(self) -> None:
        asyncio.get_running_loop().call_later(0.1, self._in_flight.remove, self._delivery)


async def test_a_worker_that_may_take_no_time_still_releases_its_jobs(caplog: pytest.LogCaptureFixture) -> None:
    in_flight = InFlight(1)
    delivery = Delivery(
        ref="r", lease_token="t", raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0, queue="q"
    )
    in_flight.add(delivery)
    executor: Any = ReleasingExecutor(in_flight, delivery)
    fetching: Any = NoFetching()
    left: list[int] = []
    is_over = asyncio.Event()

    async def close() -> None:
        left.append(len(in_flight))

    shutdown = Shutdown(in_flight, fetching, executor, close=close, stop_loop=is_over.set, background=Background())
    shutdown.begin(0)
    shutdown.celery_is_done()
    await is_over.wait()

    assert left == [0]
    assert caplog.records == []


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
