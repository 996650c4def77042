"""Jobs that were taken are run or released, also where the worker is told to stop between the two."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from worker.broker.records import Delivery
from worker.runtime.background import Background
from worker.runtime.fetch_loop import FetchLoop
from worker.runtime.in_flight import InFlight
from worker.runtime.takes import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence


class OneTake:
    """A fetcher that takes one job, and then waits."""

    is_fetching = False

    def __init__(self, batch: Batch) -> None:
        self._batch: Batch | None = batch

    async def fetch(self) -> Batch | None:
        batch, self._batch = self._batch, None
        if batch is None:
            await asyncio.Event().wait()
        return batch

    def stop_waiting(self) -> None:
        pass


class NewControls:
    """An operator has asked for something, and Redis has not answered yet for what."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def fresh(self) -> None:
        self.asked.set()
        await asyncio.Event().wait()


class Executor:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.received: list[Delivery] = []
        self.released: list[Delivery] = []

    def receive(self, deliveries: Sequence[Delivery]) -> None:
        self.received += deliveries

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += deliveries


async def nothing() -> None:
    pass


async def test_a_worker_that_stops_while_it_reads_new_controls_releases_the_jobs_that_it_has_just_taken() -> None:
    delivery = Delivery(
        ref="r", lease_token="t", raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0, queue="q"
    )
    fetcher: Any = OneTake(Batch([delivery], is_late=False))
    controls: Any = NewControls()
    executor: Any = Executor()
    background = Background()
    loop = FetchLoop(fetcher, executor, InFlight(1), controls=controls, before=nothing, background=background)
    loop.start()
    await controls.asked.wait()

    loop.cancel_between_takes()
    await background.cancel()

    assert (executor.received, executor.released) == ([], [delivery])
