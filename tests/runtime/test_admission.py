"""What is decided of a job outside its run, and what a run and the delivery of its job share."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tasks.decision import Later
from tasks.progress import from_bytes
from tasks.task_name import TASK_NAME
from tests.runtime.no_controls import NoControls
from worker.broker.records import Delivery
from worker.message.controls import Control, Note
from worker.message.decode import ReadAhead, decoder
from worker.message.selector import Selector
from worker.runtime.admission import Admission, JobHeldError, RevokedError
from worker.runtime.clock import ServerClock
from worker.runtime.in_flight import InFlight

if TYPE_CHECKING:
    from tasks.run import Run
    from worker.runtime.in_flight import Assignment

MESSAGE = json.dumps({"headers": {"id": "job-1", "task": TASK_NAME}, "body": '[["c-1"], {}, {}]'}).encode()


class RetryingHandler:
    """A handler that counts an attempt for each failure, and tries again later."""

    def failed(self, _job: object, run: Run, _error: Exception) -> Later:
        run.attempts += 1
        return Later(1.0, "internal", is_retry=True)


def admitted(*, attempts: int = 0, controls: Any = None) -> tuple[Admission, Assignment]:
    read = ReadAhead(decoder(TASK_NAME))
    handler: Any = RetryingHandler()
    admission = Admission(
        read=read,
        look_ahead=read.look,
        handler=handler,
        clock=ServerClock(),
        max_age_seconds=0,
        controls=controls or NoControls(),
    )
    assignment = InFlight(1).add(
        Delivery(
            ref="r", lease_token="t", raw=MESSAGE, size=len(MESSAGE), received_ms=0, attempts=attempts, crashes=0,
            lease_until=0, queue="q",
        )
    )  # fmt: skip
    assert admission.admit(assignment, datetime.now(UTC)) is None
    return admission, assignment


class HeldLater:
    """Controls that hold every job, once somebody asks for that."""

    def __init__(self) -> None:
        self.is_asked_for = False

    def of(self, _job: object) -> Control | None:
        return Control("hold", Selector(), Note("ann", "a runaway rule")) if self.is_asked_for else None


def test_a_run_counts_its_attempts_in_the_delivery_from_which_redis_gets_them() -> None:
    admission, assignment = admitted(attempts=2)

    run = admission.run_of(assignment)
    run.attempts += 1

    assert assignment.delivery.attempts == 3
    assert admission.run_of(assignment).attempts == 3


def test_an_error_of_the_workers_own_before_the_run_is_stored_with_the_job() -> None:
    admission, assignment = admitted()

    admission.failed(assignment, ZeroDivisionError())

    assert assignment.delivery.attempts == 1


def test_an_error_of_the_workers_own_in_a_run_loses_nothing_of_what_the_run_has_found_out() -> None:
    admission, assignment = admitted()
    run = admission.run_of(assignment)
    run.attempts, run.progress.may_be_at_work, run.progress.load_refusals = 1, True, 3

    admission.failed(assignment, ZeroDivisionError(), run)

    stored = from_bytes(assignment.delivery.progress)
    assert (assignment.delivery.attempts, stored.may_be_at_work, stored.load_refusals) == (2, True, 3)


@pytest.mark.parametrize(("what", "error"), [("held", JobHeldError), ("revoked", RevokedError)])
async def test_no_call_begins_for_a_job_that_is_held_or_revoked_while_its_lease_is_in_doubt(
    what: str, error: type[Exception]
) -> None:
    controls = HeldLater()
    admission, assignment = admitted(controls=controls)
    revoked: set[str] = set()
    run = admission.run_of(assignment, revoked.__contains__)
    assignment.delivery.lease_until = time.monotonic()  # Redis was away for so long
    call = asyncio.ensure_future(run.before_call())
    await asyncio.sleep(0)  # it begins, and waits for the renewal

    controls.is_asked_for = what == "held"
    revoked.update({"job-1"} if what == "revoked" else ())
    assignment.delivery.lease_until = time.monotonic() + 60

    with pytest.raises(error):
        await call
