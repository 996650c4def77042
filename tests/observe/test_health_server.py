"""The health port and the loop that it tells of: it asks that loop, and needs nothing else of it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.system.stage import eventually
from worker.observe import page_request
from worker.observe.health import HealthServer
from worker.observe.listening import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Worker:
    """What the port is told of a worker."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.held_back_by: list[str] = []
        self.looks = 0
        (self._listening,) = listen("127.0.0.1", 0)
        self.url = "http://127.0.0.1:{1}".format(*self._listening.getsockname())
        self.server = HealthServer(
            [self._listening],
            reasons=lambda: self.reasons,
            held_back_by=lambda: self.held_back_by,
            refresh=self._refresh,
        )

    def _refresh(self) -> None:
        self.looks += 1

    def ask(self, path: str) -> tuple[int, Any]:
        """Ask, in a thread that is not the loop's."""
        answer = httpx.get(self.url + path, trust_env=False, timeout=20)
        return answer.status_code, json.loads(answer.content)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    found = Worker()
    await found.server.start()
    yield found
    await found.server.stop()


async def test_readiness_tells_why_not_and_what_holds_the_fleet_back(worker: Worker) -> None:
    assert await asyncio.to_thread(worker.ask, "/readyz") == (200, {"status": "ready"})
    worker.held_back_by = ["paused"]
    assert await asyncio.to_thread(worker.ask, "/readyz") == (200, {"status": "ready", "held_back_by": ["paused"]})
    worker.reasons = ["stopping"]
    assert await asyncio.to_thread(worker.ask, "/readyz") == (503, {"status": "not ready", "reasons": ["stopping"]})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_while_the_loop_stands_still_the_worker_is_not_alive(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(page_request, "_REQUEST_SECONDS", 0.3)
    answers: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(worker.ask(path)))
    asking.start()
    asking.join()  # the loop stands still meanwhile

    assert answers == [(503, {"status": "not alive", "reasons": ["loop_stands_still"]})]
    assert await asyncio.to_thread(worker.ask, "/livez") == (200, {"status": "alive"})


async def test_however_many_ask_the_loop_is_asked_once_at_a_time(worker: Worker) -> None:
    asking = [threading.Thread(target=worker.ask, args=("/livez",)) for _ in range(20)]
    for thread in asking:
        thread.start()
    eventually(lambda: len(worker.server._asked) + len(worker.server._next) == len(asking), "all of them")

    for thread in asking:
        await asyncio.to_thread(thread.join)

    assert worker.looks == 2, "once for the first one, and once for all others"


async def test_an_error_in_an_answer_of_the_worker_is_a_500_and_the_next_question_is_answered(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.server._reasons = lambda: 1 / 0  # type: ignore[assignment, return-value]
    assert (await asyncio.to_thread(worker.ask, "/readyz"))[0] == 500
    assert caplog.messages == ["health_error"]

    worker.server._reasons = list
    assert await asyncio.to_thread(worker.ask, "/readyz") == (200, {"status": "ready"})
