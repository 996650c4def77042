"""An error of the worker's own keeps no job from the other workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from worker.broker.records import Delivery
from worker.runtime.background import Background
from worker.runtime.clock import ServerClock
from worker.runtime.executor import Executor
from worker.runtime.in_flight import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.runtime.in_flight import Assignment


class BrokenAdmission:
    """Has an error of its own with every job."""

    def admit(self, _assignment: Assignment, _now: object, *, may_call: bool) -> None:
        raise ZeroDivisionError(may_call)

    def failed(self, _assignment: Assignment, error: Exception) -> None:
        raise error

    def poisoned(self, _assignment: Assignment) -> None:
        raise ZeroDivisionError


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
    in_flight, admission, nothing = InFlight(1), BrokenAdmission(), None
    fakes: Any = {
        "admission": admission, "handler": nothing, "claims": nothing, "settler": nothing, "celery": nothing,
        "controls": nothing, "guard": nothing,
    }  # fmt: skip
    executor = Executor(**fakes, in_flight=in_flight, clock=ServerClock(), background=Background())
    job = Delivery(
        ref="r", lease_token="t", raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0, queue="q"
    )
    in_flight.add(job)

    with pytest.raises(ZeroDivisionError):
        give(executor, job)

    assert in_flight.deliveries() == []
