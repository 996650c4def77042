"""A worker obeys the controls that it has read for each job that it has, also for one that comes while it reads."""

from __future__ import annotations

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
