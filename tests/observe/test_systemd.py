"""What a worker says to systemd, on a real socket."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.observe.service_manager import ServiceManager, service_manager
from worker.observe.systemd import SystemdNotifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


class Worker:
    """What systemd is told of."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.reasons: list[str] = []
        self.held_back_by: list[str] = []

    @asynccontextmanager
    async def notifies(self, address: str, **environment: str) -> AsyncIterator[None]:
        notifier = SystemdNotifier(
            {"NOTIFY_SOCKET": address, **environment},
            is_stopping=lambda: self.is_stopping,
            reasons=lambda: self.reasons,
            held_back_by=lambda: self.held_back_by,
        )
        await notifier.start()
        try:
            yield
        finally:
            await notifier.stop()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@lock-worker-{uuid4().hex}"
    with service_manager(address) as found:
        yield found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - any condition, of which nobody tells
            await asyncio.sleep(0.01)


async def test_it_says_when_the_worker_can_work_and_that_it_stops(worker: Worker, manager: ServiceManager) -> None:
    worker.reasons = ["redis_unreachable"]
    async with worker.notifies(manager.notify_socket):
        await until(lambda: "STATUS=not ready: redis_unreachable" in manager.heard())
        assert "READY=1" not in manager.heard()
        worker.reasons = []
        await until(lambda: manager.heard()[-2:] == ["READY=1", "STATUS=ready"])

    assert manager.heard()[-2:] == ["READY=1", "STATUS=ready"]


async def test_a_shutdown_is_told_once_when_it_begins(worker: Worker, manager: ServiceManager) -> None:
    async with worker.notifies(manager.notify_socket):
        await until(lambda: "READY=1" in manager.heard())
        worker.is_stopping, worker.reasons = True, ["stopping"]
        await until(lambda: "STOPPING=1" in manager.heard())

    assert manager.heard().count("STOPPING=1") == 1
    assert "STATUS=not ready: stopping" in manager.heard()


async def test_a_shutdown_that_is_over_at_once_is_told_too(worker: Worker, manager: ServiceManager) -> None:
    async with worker.notifies(manager.notify_socket):
        await until(lambda: "READY=1" in manager.heard())
        worker.is_stopping, worker.reasons = True, ["stopping"]

    assert manager.heard().count("STOPPING=1") == 1


async def test_the_watchdog_hears_of_the_loop_as_long_as_it_runs(worker: Worker, manager: ServiceManager) -> None:
    worker.reasons = ["redis_unreachable"]  # no reason to restart it
    async with worker.notifies(manager.notify_socket, WATCHDOG_USEC="30000", WATCHDOG_PID=str(os.getpid())):
        await until(lambda: manager.heard().count("WATCHDOG=1") >= 3)
        heard = manager.heard().count("WATCHDOG=1")
        time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still
        assert manager.heard().count("WATCHDOG=1") == heard
        await until(lambda: manager.heard().count("WATCHDOG=1") > heard)


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}], ids=str
)
async def test_a_watchdog_that_waits_for_nothing_of_this_process_hears_nothing(
    worker: Worker, manager: ServiceManager, environment: dict[str, str]
) -> None:
    async with worker.notifies(manager.notify_socket, **environment):
        await until(lambda: "READY=1" in manager.heard())

    assert "WATCHDOG=1" not in manager.heard()


async def test_a_start_that_waits_asks_for_more_time_and_a_stop_does_not(
    worker: Worker, manager: ServiceManager
) -> None:
    worker.reasons = ["redis_unreachable"]
    async with worker.notifies(manager.notify_socket, WATCHDOG_USEC="30000"):
        await until(lambda: manager.heard().count("EXTEND_TIMEOUT_USEC=30000000") >= 2)
        worker.is_stopping = True
        await until(lambda: "STOPPING=1" in manager.heard())
        asked = manager.heard().count("EXTEND_TIMEOUT_USEC=30000000")
        signs = manager.heard().count("WATCHDOG=1")
        await until(lambda: manager.heard().count("WATCHDOG=1") > signs)

    assert manager.heard().count("EXTEND_TIMEOUT_USEC=30000000") == asked


async def test_what_holds_the_fleet_back_is_told_beside_that_the_worker_is_ready(
    worker: Worker, manager: ServiceManager
) -> None:
    worker.held_back_by = ["api_down", "paused"]
    async with worker.notifies(manager.notify_socket):
        await until(lambda: "STATUS=ready, held back by: api_down, paused" in manager.heard())

    assert "READY=1" in manager.heard()


@pytest.mark.parametrize("address", ["relative", "/no/such/folder/notify", "/" + "n" * 200])
async def test_a_socket_that_cannot_be_reached_is_said_once_and_stops_nothing(
    worker: Worker, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker.notifies(address, WATCHDOG_USEC="30000"):
        await until(lambda: bool(caplog.records))

    (record,) = caplog.records
    assert (record.levelno, record.msg) == (logging.WARNING, "systemd_not_notified")
    assert record.__dict__["error"].startswith("NOTIFY_SOCKET: ")


async def test_an_error_of_the_worker_is_logged_and_it_notifies_when_that_is_over(
    worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del worker.held_back_by
    with service_manager(str(tmp_path / "notify")) as manager:
        async with worker.notifies(manager.notify_socket):
            await until(lambda: bool(caplog.records))
            worker.held_back_by = []
            await until(lambda: "READY=1" in manager.heard())
            del worker.held_back_by

    assert {(record.levelno, record.msg) for record in caplog.records} == {(logging.ERROR, "systemd_notifier_failed")}


async def test_what_could_not_be_sent_is_sent_when_systemd_is_back(
    worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = str(tmp_path / "notify")
    async with worker.notifies(address):
        await until(lambda: bool(caplog.records))
        with service_manager(address) as manager:
            await until(lambda: "READY=1" in manager.heard())
