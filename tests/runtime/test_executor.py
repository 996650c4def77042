"""An error of the worker's own keeps no job from the other workers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tasks.task_name import TASK_NAME
from worker.broker.records import Delivery
from worker.message.decode import decoder
from worker.runtime.background import Background
from worker.runtime.clock import ServerClock
from worker.runtime.executor import Executor
from worker.runtime.in_flight import InFlight
from worker.runtime.rule_guard import NoGuard

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Sequence

    from worker.runtime.in_flight import Assignment


class WillingAdmission:
    """Lets every job run."""

    def admit(self, assignment: Assignment, _now: object, *, may_call: bool) -> None:
        assert may_call
        assignment.read = decoder(TASK_NAME)(assignment.delivery.raw, size=0, now=datetime.now(UTC))


class Unwatched:
    """Celery wants to see no job."""

    def is_watched(self, _job: str) -> bool:
        return False


class NoControls:
    """Nobody cancelled a job."""

    are_ids_cancelled = False


class OneTask(Background):
    """Runs one task, for which the test waits."""

    task: asyncio.Task[None]

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.task = super().spawn(work)
        return self.task


class BrokenClaims:
    """Has an error of its own with every claim."""

    async def claim(self, _queue: str, _assignments: Sequence[Assignment]) -> None:
        raise ZeroDivisionError


class BrokenAdmission:
    """Has an error of its own with every job."""

    def admit(self, _assignment: Assignment, _now: object, *, may_call: bool) -> None:
        raise ZeroDivisionError(may_call)

    def failed(self, _assignment: Assignment, error: Exception) -> None:
        raise error

    def poisoned(self, _assignment: Assignment) -> None:
        raise ZeroDivisionError


def executor_with(in_flight: InFlight, background: Background, **parts: Any) -> Executor:
    usual: dict[str, Any] = {
        "handler": None, "claims": None, "settler": None, "celery": Unwatched(), "controls": NoControls(),
        "guard": NoGuard(),
    }  # fmt: skip
    return Executor(**{**usual, **parts}, in_flight=in_flight, clock=ServerClock(), background=background)


def delivered(in_flight: InFlight) -> Delivery:
    """A job as its take brought it."""
    job = Delivery(
        ref="r", lease_token="t", raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0, queue="q"
    )
    in_flight.add(job)
    return job


@pytest.mark.parametrize(
    "give",
    [
        lambda executor, job: executor.receive([job]),
        lambda executor, job: executor.end_expired([job]),
        lambda executor, job: executor.end_poisoned(job),
    ],
    ids=["taken", "too old", "poisoned"],
)
def test_a_job_that_cannot_begin_is_left_to_its_lease(give: Callable[[Executor, Delivery], None]) -> None:
    """Renewed for ever, its lease would keep every worker from it."""
    in_flight = InFlight(1)
    executor = executor_with(in_flight, Background(), admission=BrokenAdmission())
    job = delivered(in_flight)

    with pytest.raises(ZeroDivisionError):
        give(executor, job)

    assert in_flight.deliveries() == []


async def test_a_job_whose_id_cannot_be_claimed_is_left_to_its_lease() -> None:
    in_flight, background = InFlight(1), OneTask()
    executor = executor_with(in_flight, background, admission=WillingAdmission(), claims=BrokenClaims())

    executor.receive([delivered(in_flight)])
    with pytest.raises(ZeroDivisionError):
        await background.task

    assert in_flight.deliveries() == []
