"""A worker obeys the controls that it has read for each job that it has, also for one that comes while it reads.

It obeys the newest ones, also where two parts of it read them at once.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.task_name import TASK_NAME
from worker.broker.keys import digest
from worker.broker.records import Claim, ClaimAnswer, Delivery
from worker.message.decode import decoder
from worker.runtime.background import Background
from worker.runtime.clock import ServerClock
from worker.runtime.control_watch import ControlWatch
from worker.runtime.in_flight import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.broker.workbench import Workbench
    from worker.runtime.in_flight import Assignment


class Interrupted:
    """A client beside which something else happens: after each answer, before it is read."""

    def __init__(self, bench: Workbench, between: Callable[[str], None]) -> None:
        self._client = bench.async_client
        self._between = between

    async def execute_command(self, *command: Any) -> Any:
        answer = await self._client.execute_command(*command)
        self._between(str(command[0]))
        return answer


def delivery_of(job_id: str) -> Delivery:
    """A job whose id was claimed along with its take, before anybody cancelled it."""
    raw = json.dumps({"headers": {"id": job_id, "task": TASK_NAME}, "body": '[["c-1"], {}, {}]'}).encode()
    return Delivery(
        ref=job_id, lease_token="t", raw=raw, size=len(raw), received_ms=0, attempts=0, crashes=0, lease_until=0,
        queue="q", claimed=(Claim(digest(job_id), digest("c-1")), ClaimAnswer.GO),
    )  # fmt: skip


async def obeying(bench: Workbench, in_flight: InFlight, between: Callable[[str], None]) -> ControlWatch:
    """A worker reads the controls, as an id was cancelled, and obeys."""
    version = await bench.cancel(digest("job-1"))
    client: Any = Interrupted(bench, between)
    watch = ControlWatch(client, bench.keys, in_flight=in_flight, clock=ServerClock(), background=Background())
    await watch.reload()
    assert watch.version == version
    return watch


def read(assignment: Assignment) -> None:
    """It is read, as all jobs are before they are claimed."""
    assignment.read = decoder(TASK_NAME)(
        assignment.delivery.raw, size=assignment.delivery.size, now=ServerClock().now()
    )


@pytest.mark.parametrize("when", ["before", "HGETALL", "EXISTS", "MGET"])
async def test_a_job_that_comes_while_the_controls_are_read_is_claimed_anew(bench: Workbench, when: str) -> None:
    in_flight = InFlight(10)
    read(in_flight.add(delivery_of("job-0")))
    delivery = delivery_of("job-1")
    if when == "before":
        in_flight.add(delivery)

    def come(command: str) -> None:
        if command == when:
            in_flight.add(delivery)

    await obeying(bench, in_flight, come)

    assert in_flight.get(delivery) is not None
    assert delivery.claimed is None


@pytest.mark.parametrize("when", ["before", "HGETALL", "EXISTS", "MGET"])
async def test_a_job_that_is_read_by_then_knows_that_its_id_is_cancelled(bench: Workbench, when: str) -> None:
    in_flight = InFlight(10)
    read(in_flight.add(delivery_of("job-0")))
    delivery = delivery_of("job-1")

    def come(command: str) -> None:
        if command == when and in_flight.get(delivery) is None:
            read(in_flight.add(delivery))

    come("before")
    await obeying(bench, in_flight, come)

    assignment = in_flight.get(delivery)
    assert assignment is not None
    assert assignment.cancel_note is not None


class Slow:
    """A client whose first answer comes late."""

    def __init__(self, bench: Workbench) -> None:
        self._client = bench.async_client
        self.is_answered = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def execute_command(self, *command: Any) -> Any:
        answer = await self._client.execute_command(*command)
        if not self.is_answered.is_set():
            self.is_answered.set()
            await self.may_go_on.wait()
        return answer


async def test_a_late_answer_does_not_bring_controls_back_that_are_over(bench: Workbench) -> None:
    client: Any = Slow(bench)
    watch = ControlWatch(client, bench.keys, in_flight=InFlight(1), clock=ServerClock(), background=Background())
    await bench.cancel(digest("job-1"))
    late = asyncio.create_task(watch.reload())
    await client.is_answered.wait()
    newest = await bench.cancel(digest("job-2"))

    second = asyncio.create_task(watch.reload())
    await asyncio.wait([second], timeout=0.2)  # as far as it comes while the late answer is under way
    client.may_go_on.set()
    await asyncio.gather(late, second)

    assert watch.version == newest
