"""When a process may connect: at once while all is well, else one attempt at a time after growing waits."""

from __future__ import annotations

from itertools import pairwise

import pytest

from worker.broker.backoff import FIRST_SECONDS, MAX_SECONDS, ConnectBackoff


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def backoff_of(clock: Clock, drawn: float = 0.0) -> ConnectBackoff:
    return ConnectBackoff(rng=lambda: drawn, now=clock)


def waits(backoff: ConnectBackoff, clock: Clock, attempts: int) -> list[float]:
    """The waits between attempts that all fail at once."""
    found = []
    for _ in range(attempts):
        backoff.failed(clock.now)
        found.append(backoff.seconds_to_wait())
        clock.now += found[-1]
        assert backoff.seconds_to_wait() == 0
    return found


def test_while_connections_hold_any_number_may_be_made() -> None:
    backoff = backoff_of(Clock())

    assert [backoff.seconds_to_wait() for _ in range(100)] == [0.0] * 100


def test_the_waits_between_failing_attempts_grow_to_a_limit() -> None:
    clock = Clock()
    found = waits(backoff_of(clock), clock, 10)

    assert found[0] == pytest.approx(FIRST_SECONDS)
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(found))
    assert found[-1] == pytest.approx(MAX_SECONDS)


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
def test_jitter_shortens_a_wait_by_up_to_half(drawn: float, share: float) -> None:
    clock = Clock()

    assert waits(backoff_of(clock, drawn), clock, 1) == [pytest.approx(FIRST_SECONDS * share)]


def test_after_a_failure_one_attempt_is_made_at_a_time() -> None:
    clock = Clock()
    backoff = backoff_of(clock)
    backoff.failed(clock.now)
    clock.now += 1

    assert [backoff.seconds_to_wait() == 0 for _ in range(3)] == [True, False, False]


def test_an_attempt_that_nobody_tells_of_does_not_hold_up_the_others_for_ever() -> None:
    clock = Clock()
    backoff = backoff_of(clock)
    backoff.failed(clock.now)
    clock.now += 1
    assert backoff.seconds_to_wait() == 0

    clock.now += backoff.seconds_to_wait()

    assert backoff.seconds_to_wait() == 0


def test_when_an_attempt_has_worked_all_may_connect() -> None:
    clock = Clock()
    backoff = backoff_of(clock)
    backoff.failed(clock.now)
    clock.now += 1

    backoff.worked(clock.now)

    assert [backoff.seconds_to_wait() for _ in range(3)] == [0.0] * 3


def test_an_answer_on_a_connection_that_is_older_than_the_failure_lets_nobody_connect() -> None:
    clock = Clock()
    backoff = backoff_of(clock)
    made_at = clock.now
    clock.now += 60
    backoff.failed(clock.now)

    backoff.worked(made_at)

    assert backoff.seconds_to_wait() == pytest.approx(FIRST_SECONDS)


def test_connections_that_are_lost_together_count_once() -> None:
    clock = Clock()
    backoff = backoff_of(clock)
    made_at = clock.now
    clock.now += 60

    for _ in range(10):
        backoff.failed(made_at)

    assert backoff.seconds_to_wait() == pytest.approx(FIRST_SECONDS)


def test_connections_that_work_for_a_moment_and_are_lost_are_made_ever_more_seldom() -> None:
    clock = Clock()
    backoff = backoff_of(clock)
    for _ in range(10):
        backoff.worked(clock.now)
        made_at = clock.now
        clock.now += 0.01
        backoff.failed(made_at)
        wait = backoff.seconds_to_wait()
        clock.now += wait

    assert wait == pytest.approx(MAX_SECONDS)


def test_after_a_long_time_without_a_failure_the_waits_begin_small_again() -> None:
    clock = Clock()
    backoff = backoff_of(clock)
    waits(backoff, clock, 10)
    backoff.worked(clock.now)

    clock.now += 60

    assert waits(backoff, clock, 1) == [pytest.approx(FIRST_SECONDS)]
