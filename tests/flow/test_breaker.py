"""A breaker: it opens when everything fails, lets single probes through, and opens the door again by degrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.flow.clock import Clock
from worker.flow.breaker import Breaker, State
from worker.gate import Admit, Wait

if TYPE_CHECKING:
    from collections.abc import Iterable

JOBS = ("a", "b", "c", "d")
CONCURRENCY = 8


@pytest.fixture
def clock() -> Clock:
    return Clock()


def new_breaker(
    clock: Clock, *, failures: int = 10, jobs: int = 3, longest: float = 30.0, chance: float = 0
) -> Breaker:
    return Breaker(
        "api_down", advice="Look at the API.", failures=failures, jobs=jobs,
        first_wait=1.0, longest_wait=longest, clock=clock, chance=lambda: chance,
    )  # fmt: skip


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return new_breaker(clock)


def fail(breaker: Breaker, times: int, jobs: Iterable[str] = JOBS) -> list[bool]:
    """Calls fail, for these jobs in turn; whether each counts as an attempt."""
    names = tuple(jobs)
    return [breaker.failed(names[number % len(names)]) for number in range(times)]


def opened(clock: Clock) -> Breaker:
    breaker = new_breaker(clock)
    fail(breaker, 10)
    return breaker


def probe(breaker: Breaker, clock: Clock) -> float:
    """Wait until a probe may pass, and take it; how long that was."""
    answer = breaker.ask(5, 0)
    waited = 0.0
    if isinstance(answer, Wait):
        waited = answer.seconds
        clock.wait(waited)
        answer = breaker.ask(5, 0)
    assert answer == Admit(1, is_probe=True)
    return waited


# Closed


def test_while_calls_succeed_all_that_is_wanted_passes(breaker: Breaker) -> None:
    assert breaker.ask(7, 3) == Admit(7)
    breaker.succeeded(CONCURRENCY)
    assert breaker.ask(0, 0) == Admit(0)
    assert breaker.state is State.CLOSED


def test_it_opens_at_so_many_failures_in_a_row_and_they_all_count_as_attempts(breaker: Breaker) -> None:
    assert fail(breaker, 9) == [True] * 9
    assert breaker.is_closed

    assert fail(breaker, 1) == [True]

    assert breaker.state is State.OPEN
    assert (breaker.is_open, breaker.is_closed) == (True, False)


@pytest.mark.parametrize("jobs", [["a"], ["a", "b"]])
def test_failures_of_one_or_two_jobs_never_open_it(breaker: Breaker, jobs: list[str]) -> None:
    assert fail(breaker, 1000, jobs) == [True] * 1000
    assert breaker.is_closed


def test_a_third_job_that_fails_opens_it_when_the_failures_are_enough(breaker: Breaker) -> None:
    fail(breaker, 50, ["a", "b"])

    breaker.failed("c")

    assert breaker.state is State.OPEN


def test_one_success_in_between_and_it_counts_from_the_beginning(breaker: Breaker) -> None:
    for _ in range(100):
        fail(breaker, 9)
        breaker.succeeded(CONCURRENCY)
    assert breaker.is_closed

    fail(breaker, 9, ["a", "b"])
    assert breaker.is_closed


def test_after_a_success_the_jobs_are_counted_from_the_beginning_too(breaker: Breaker) -> None:
    breaker.failed("c")
    breaker.succeeded(CONCURRENCY)

    fail(breaker, 100, ["a", "b"])

    assert breaker.is_closed


def test_without_a_number_of_failures_it_never_opens(clock: Clock) -> None:
    breaker = new_breaker(clock, failures=0)

    assert fail(breaker, 1000) == [True] * 1000

    assert breaker.is_closed
    assert breaker.ask(7, 0) == Admit(7)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_few_failures_still_need_several_jobs(clock: Clock, failures: int) -> None:
    breaker = new_breaker(clock, failures=failures)

    breaker.failed("a")
    breaker.failed("b")
    assert breaker.is_closed

    breaker.failed("c")
    assert breaker.is_open


# Open


def test_while_it_is_open_the_wait_and_its_reason_are_told(clock: Clock) -> None:
    breaker = opened(clock)

    assert breaker.ask(5, 0) == Wait(1.0, "api_down")
    clock.wait(0.75)
    assert breaker.ask(5, 0) == Wait(0.25, "api_down")


def test_then_one_job_passes_as_a_probe_and_no_second_one_with_it(clock: Clock) -> None:
    breaker = opened(clock)
    clock.wait(1.0)

    assert breaker.ask(5, 0) == Admit(1, is_probe=True)

    assert breaker.ask(5, 1) == Wait(1.0, "api_down")


def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest(clock: Clock) -> None:
    breaker = opened(clock)
    waits = []

    for _ in range(8):
        waits.append(probe(breaker, clock))
        assert breaker.failed("a") is False

    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_waits_are_stretched_by_chance_so_that_pods_do_not_probe_in_step(clock: Clock) -> None:
    breaker = new_breaker(clock, chance=1.0)
    fail(breaker, 10)
    waits = []

    for _ in range(3):
        waits.append(probe(breaker, clock))
        breaker.failed("a")

    assert waits == pytest.approx([1.2, 2.4, 4.8])


def test_probes_of_an_api_that_does_not_answer_go_out_one_a_wait(clock: Clock) -> None:
    breaker = opened(clock)

    assert [probe(breaker, clock) for _ in range(5)] == [1.0] * 5

    for _ in range(5):  # and when they all fail at last, that is one doubling
        breaker.failed("a")
    assert breaker.ask(5, 0) == Wait(2.0, "api_down")


def test_failures_of_calls_that_were_under_way_cost_no_attempt_and_do_not_put_off_the_probe(clock: Clock) -> None:
    breaker = opened(clock)
    clock.wait(0.5)

    assert fail(breaker, 100) == [False] * 100

    assert breaker.ask(5, 0) == Wait(0.5, "api_down")


def test_failures_beside_a_probe_double_the_wait_once_at_most(clock: Clock) -> None:
    breaker = opened(clock)
    probe(breaker, clock)

    assert fail(breaker, 100) == [False] * 100

    assert breaker.ask(5, 0) == Wait(2.0, "api_down")


def test_a_probe_that_found_no_job_is_given_back(clock: Clock) -> None:
    breaker = opened(clock)
    for _ in range(5):
        assert probe(breaker, clock) in {0.0, 1.0}
        breaker.unused()

    assert breaker.ask(5, 0) == Admit(1, is_probe=True)
    breaker.failed("a")
    assert breaker.ask(5, 0) == Wait(2.0, "api_down")


def test_only_a_probe_can_be_given_back(clock: Clock) -> None:
    """A take that was on its way when the breaker opened finds nothing: that is no reason to probe at once."""
    breaker = opened(clock)
    breaker.unused()
    assert breaker.ask(5, 0) == Wait(1.0, "api_down")

    probe(breaker, clock)
    breaker.failed("a")
    breaker.unused()
    assert breaker.ask(5, 0) == Wait(2.0, "api_down")


def test_a_worker_with_full_hands_spends_no_probe(clock: Clock) -> None:
    breaker = opened(clock)
    clock.wait(1.0)

    assert breaker.ask(0, 5) == Admit(0)

    assert breaker.ask(1, 4) == Admit(1, is_probe=True)


def test_giving_back_means_nothing_to_a_breaker_that_is_not_open(clock: Clock) -> None:
    breaker = opened(clock)
    probe(breaker, clock)
    breaker.succeeded(CONCURRENCY)

    breaker.unused()

    assert breaker.state is State.RECOVERING
    assert breaker.ask(5, 0) == Admit(1)


# Recovering


def recovering(clock: Clock) -> Breaker:
    breaker = opened(clock)
    probe(breaker, clock)
    breaker.succeeded(CONCURRENCY)
    return breaker


def test_a_success_opens_the_door_by_degrees_and_at_last_wide(clock: Clock) -> None:
    breaker = recovering(clock)
    assert breaker.state is State.RECOVERING
    widths = []

    while not breaker.is_closed:
        answer = breaker.ask(100, 0)
        assert isinstance(answer, Admit)
        assert not answer.is_probe
        widths.append(answer.jobs)
        for _ in range(answer.jobs):  # all of them succeed
            breaker.succeeded(CONCURRENCY)

    assert widths == [1, 2, 4]
    assert breaker.ask(100, 0) == Admit(100)


def test_jobs_that_are_held_already_fill_the_door(clock: Clock) -> None:
    breaker = recovering(clock)
    breaker.succeeded(CONCURRENCY)
    breaker.succeeded(CONCURRENCY)

    assert breaker.ask(100, 0) == Admit(3)
    assert breaker.ask(100, 2) == Admit(1)
    assert breaker.ask(100, 50) == Admit(0)
    assert breaker.ask(2, 0) == Admit(2)


def test_a_worker_with_one_slot_recovers_too(clock: Clock) -> None:
    breaker = opened(clock)
    probe(breaker, clock)

    breaker.succeeded(1)
    assert breaker.ask(1, 0) == Admit(1)
    breaker.succeeded(1)

    assert breaker.is_closed


def test_failures_in_recovery_count_as_attempts_and_now_and_then_one_does_not_open_it_again(clock: Clock) -> None:
    breaker = recovering(clock)

    for _ in range(3):
        assert fail(breaker, 2) == [True, True]
        assert breaker.state is State.RECOVERING
        breaker.succeeded(CONCURRENCY)


def test_three_failures_in_a_row_open_it_again_for_twice_as_long(clock: Clock) -> None:
    breaker = recovering(clock)

    assert fail(breaker, 3) == [True] * 3

    assert breaker.state is State.OPEN
    assert breaker.ask(5, 0) == Wait(2.0, "api_down")


def test_an_outage_after_a_recovery_begins_with_the_shortest_wait(clock: Clock) -> None:
    breaker = opened(clock)
    for _ in range(4):
        probe(breaker, clock)
        breaker.failed("a")
    probe(breaker, clock)
    while not breaker.is_closed:
        breaker.succeeded(CONCURRENCY)

    fail(breaker, 10)

    assert breaker.ask(5, 0) == Wait(1.0, "api_down")


def test_failures_from_before_the_recovery_count_for_nothing_after_it(clock: Clock) -> None:
    breaker = recovering(clock)
    while not breaker.is_closed:
        breaker.succeeded(CONCURRENCY)

    fail(breaker, 9)

    assert breaker.is_closed


# What it says


def test_each_change_is_one_log_line_and_those_for_the_person_on_call_say_what_to_do(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = opened(clock)
    fail(breaker, 20)
    probe(breaker, clock)
    fail(breaker, 20)
    probe(breaker, clock)
    breaker.succeeded(CONCURRENCY)
    fail(breaker, 3)
    probe(breaker, clock)
    for _ in range(CONCURRENCY * 2):
        breaker.succeeded(CONCURRENCY)

    lines = [
        (record.levelname, record.message, record.__dict__.get("failures"), record.__dict__.get("wait_seconds"))
        for record in caplog.records
    ]
    assert lines == [
        ("ERROR", "breaker_opened", 10, 1.0),
        ("ERROR", "breaker_probe_failed", 31, 2.0),
        ("WARNING", "breaker_recovering", None, None),
        ("ERROR", "breaker_reopened", 3, 4.0),
        ("WARNING", "breaker_recovering", None, None),
        ("WARNING", "breaker_closed", None, None),
    ]
    assert {record.__dict__["reason"] for record in caplog.records} == {"api_down"}
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert {record.__dict__["advice"] for record in errors} == {"Look at the API."}
