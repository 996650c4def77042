"""What is decided of a job outside its run, and what a run and the delivery of its job share."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tasks.decision import Later
from tasks.progress import from_bytes
from tasks.task_name import TASK_NAME
from tests.runtime.no_controls import NoControls
from worker.broker.records import Delivery
from worker.message.decode import ReadAhead, decoder
from worker.runtime.admission import Admission
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


def admitted(*, attempts: int = 0) -> tuple[Admission, Assignment]:
    read = ReadAhead(decoder(TASK_NAME))
    handler: Any = RetryingHandler()
    admission = Admission(
        read=read,
        look_ahead=read.look,
        handler=handler,
        clock=ServerClock(),
        max_age_seconds=0,
        controls=NoControls(),
    )
    assignment = InFlight(1).add(
        Delivery(
            ref="r", lease_token="t", raw=MESSAGE, size=len(MESSAGE), received_ms=0, attempts=attempts, crashes=0,
            lease_until=0, queue="q",
        )
    )  # fmt: skip
    assert admission.admit(assignment, datetime.now(UTC)) is None
    return admission, assignment


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
