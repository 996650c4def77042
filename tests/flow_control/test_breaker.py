"""A breaker: it opens when fresh jobs fail in a row, lets single probes through, and closes again by degrees."""

from __future__ import annotations

import pytest

from tests.flow_control.clock import Clock
from worker.flow_control.breaker import Breaker, State
from worker.flow_control.gate_answer import Admit, Wait

SLOTS = 8


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """One that is closed."""
    made = new_breaker(clock)
    answer(made, clock, SLOTS)
    assert made.is_closed
    return made


def new_breaker(clock: Clock, failures: int = 10) -> Breaker:
    return Breaker(
        "api_down", answered_again="api_available", advice="Look at the API.", failures=failures, first_wait=1.0,
        max_wait=8.0, clock=clock, rng=lambda: 0.0,
    )  # fmt: skip


def answer(breaker: Breaker, clock: Clock, times: int = 1) -> None:
    for _ in range(times):
        breaker.succeeded(clock.now, SLOTS)


def fail(breaker: Breaker, clock: Clock, times: int, *, is_fresh: bool = True, is_outright: bool = False) -> None:
    for number in range(times):
        breaker.failed(f"job-{number}", clock.now, is_fresh=is_fresh, is_outright=is_outright)


def test_a_worker_begins_with_one_call_and_grows_with_each_answer(clock: Clock) -> None:
    breaker = new_breaker(clock)

    assert breaker.ask(5, 0) == Admit(1)
    assert breaker.ask(5, 1) == Admit(0)
    answer(breaker, clock, 3)
    assert breaker.ask(5, 1) == Admit(3)
    answer(breaker, clock, SLOTS)
    assert breaker.ask(5, 3) == Admit(5)


def test_a_first_call_that_hangs_lets_a_probe_out_beside_it(clock: Clock) -> None:
    breaker = new_breaker(clock)

    assert breaker.ask(5, 1, stuck=1) == Admit(1, is_probe=True)
    assert breaker.ask(5, 2, stuck=1) == Admit(0)


def test_stuck_calls_hold_no_place_of_a_slow_start(clock: Clock) -> None:
    breaker = new_breaker(clock)
    answer(breaker, clock, 2)

    assert breaker.ask(5, 3, stuck=2) == Admit(2)


def test_ten_fresh_failures_in_a_row_open_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 9)
    assert breaker.is_closed

    fail(breaker, clock, 1)
    breaker.failed("another", clock.now, is_fresh=True)

    assert breaker.ask(5, 0) == Wait(1.0, "api_down")


def test_jobs_that_failed_before_do_not_open_it_however_many_they_are(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 500, is_fresh=False)

    assert breaker.is_closed


def test_lost_connections_open_it_whatever_the_jobs(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 10, is_fresh=False, is_outright=True)

    assert breaker.is_open


def test_it_never_opens_where_it_is_switched_off(clock: Clock) -> None:
    breaker = new_breaker(clock, failures=0)
    fail(breaker, clock, 500)

    assert not breaker.is_open


def test_probes_go_one_at_a_time_at_growing_intervals(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)
    waits = []
    for _ in range(5):
        wait = breaker.ask(5, 0)
        assert isinstance(wait, Wait)
        waits.append(wait.seconds)
        clock.wait(wait.seconds)
        assert breaker.ask(5, 0) == Admit(1, is_probe=True)
        assert isinstance(breaker.ask(5, 0), Wait)
        breaker.probe_failed(is_fresh=True)

    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]


def test_a_probe_that_hung_has_waited_already(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)
    clock.wait(1)
    breaker.ask(5, 0)
    clock.wait(10)

    breaker.probe_failed(is_fresh=True)

    assert breaker.ask(5, 0) == Admit(1, is_probe=True)


def test_a_probe_that_came_to_no_call_lets_the_next_one_go_at_once(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)
    clock.wait(1)
    breaker.ask(5, 0)

    breaker.give_back_probe()

    assert breaker.ask(5, 0) == Admit(1, is_probe=True)


def test_a_fresh_probe_that_fails_confirms_an_outage_once(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)

    assert breaker.probe_failed(is_fresh=True)
    assert not breaker.probe_failed(is_fresh=True)


def test_an_answered_probe_begins_a_slow_start(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)
    clock.wait(1)

    answer(breaker, clock)

    assert breaker.state is State.HALF_OPEN
    assert breaker.ask(5, 0) == Admit(2)


def test_an_answer_to_a_call_of_before_does_not_close_it(breaker: Breaker, clock: Clock) -> None:
    began = clock.now
    clock.wait(0.1)
    fail(breaker, clock, 11)

    breaker.succeeded(began, SLOTS)

    assert breaker.is_open


def test_three_failures_open_it_again_while_it_is_in_doubt(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)
    clock.wait(60)
    answer(breaker, clock)

    clock.wait(1)
    fail(breaker, clock, 3)

    assert breaker.is_open


def test_a_block_of_bad_jobs_that_opened_it_makes_it_slower_to_open_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)
    clock.wait(1)
    answer(breaker, clock, SLOTS)

    clock.wait(1)
    fail(breaker, clock, 10)

    assert breaker.is_closed


def test_a_pod_that_hears_of_others_success_probes_soon(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, clock, 11)

    breaker.probe_soon()

    assert breaker.ask(5, 0) == Admit(1, is_probe=True)
