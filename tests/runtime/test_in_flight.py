"""What a worker holds, and how much more it may take."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tasks.job import Job
from tasks.message import Accepted
from worker.broker.records import TAKE_JOBS, Delivery
from worker.runtime.in_flight import InFlight


def delivery(ref: str = "job-1", take: str = "take-1", *, is_alone: bool = False) -> Delivery:
    return Delivery(
        ref=ref, lease_token=take, raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0, queue="",
        runs_alone=is_alone
    )  # fmt: skip


def test_free_slots_are_what_is_wanted() -> None:
    in_flight = InFlight(3)

    in_flight.add(delivery("a"))
    assert (len(in_flight), in_flight.free_slots()) == (1, 2)
    in_flight.add(delivery("b"))
    in_flight.add(delivery("c"))
    assert (len(in_flight), in_flight.free_slots()) == (3, 0)
    in_flight.remove(delivery("b"))
    assert [held.ref for held in in_flight.deliveries()] == ["a", "c"]
    assert in_flight.free_slots() == 1


def test_a_limit_that_shrinks_below_what_is_held_wants_nothing() -> None:
    in_flight = InFlight(3)
    for ref in "abc":
        in_flight.add(delivery(ref))

    in_flight.limit = 1
    assert in_flight.free_slots() == 0
    in_flight.limit = 5
    assert in_flight.free_slots() == 2


def test_a_job_that_was_lost_and_taken_again_is_two_things() -> None:
    in_flight = InFlight(3)
    in_flight.add(delivery(take="take-1"))
    in_flight.add(delivery(take="take-2"))

    in_flight.remove(delivery(take="take-1"))
    in_flight.remove(delivery(take="take-1"))

    assert [held.lease_token for held in in_flight.deliveries()] == ["take-2"]


def test_nothing_is_taken_beside_a_suspect() -> None:
    in_flight = InFlight(3)
    suspect = delivery(is_alone=True)

    in_flight.add(suspect)
    assert in_flight.free_slots() == 0
    in_flight.remove(suspect)
    assert in_flight.free_slots() == 3


def test_a_worker_that_drains_for_a_suspect_has_no_free_slot_until_no_job_is_in_flight() -> None:
    in_flight = InFlight(3)
    in_flight.add(delivery())

    in_flight.is_draining = True
    assert in_flight.free_slots() == 0
    in_flight.remove(delivery())
    assert in_flight.free_slots() == 3
    in_flight.add(delivery())
    assert in_flight.free_slots() == 2, "it has asked once, and is not draining any more"


def test_a_closed_worker_has_no_free_slot() -> None:
    in_flight = InFlight(3)

    in_flight.is_closed = True

    assert in_flight.free_slots() == 0


def test_jobs_on_their_way_to_those_on_hold_use_no_slot_up_to_as_many_as_a_take_brings() -> None:
    in_flight = InFlight(3)
    leaving = [in_flight.add(delivery(str(number))) for number in range(TAKE_JOBS + 1)]
    assert in_flight.free_slots() == 0

    for assignment in (*leaving, leaving[0]):
        in_flight.set_aside(assignment)
    assert in_flight.free_slots() == 2

    for assignment in leaving:
        in_flight.remove(assignment.delivery)
    in_flight.set_aside(leaving[0])
    assert in_flight.free_slots() == 3


def test_a_job_is_due_when_it_was_first_taken_or_at_its_eta_if_that_is_later() -> None:
    assignment = InFlight(1).add(replace(delivery(), received_ms=1_000_000))
    job = Accepted(
        id="job-1", fingerprint="c-1", job=Job(conversation_id="c-1"), received_fields={}, not_before=None,
        expires_at=None, traceparent=None, replay_of=None, ignored=(),
    )  # fmt: skip

    for eta_seconds, due_ms in ((None, 1_000_000), (900, 1_000_000), (1_600, 1_600_000)):
        not_before = None if eta_seconds is None else datetime.fromtimestamp(eta_seconds, UTC)
        assignment.read = replace(job, not_before=not_before)
        assert assignment.due_ms == due_ms
