"""When a job is tried again: how long each wait is, and when there is no further call."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.retry import RetryPolicy, backoff

SEED = 20261126


def policy(
    *, max_attempts: int = 1000, base: float = 0.5, longest: float = 300.0, drawn: float | Random = 0.5
) -> RetryPolicy:
    rng = drawn.random if isinstance(drawn, Random) else lambda: drawn
    return RetryPolicy(max_attempts=max_attempts, base_seconds=base, max_delay_seconds=longest, rng=rng)


def many(attempts: int, of: RetryPolicy) -> list[float]:
    """Many waits after so many calls."""
    waits = [of.delay(attempts, None) for _ in range(300)]
    return [wait for wait in waits if wait is not None]


@pytest.mark.parametrize(("attempts", "bound"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (10, 256.0)])
def test_a_wait_is_drawn_from_zero_to_a_bound_that_doubles_with_each_call(attempts: int, bound: float) -> None:
    assert policy(drawn=0.0).delay(attempts, None) == 0
    assert policy(drawn=0.25).delay(attempts, None) == bound / 4
    assert policy(drawn=1.0).delay(attempts, None) == bound


@pytest.mark.parametrize("attempts", [1, 5, 20])
def test_the_waits_are_spread_evenly_from_zero_to_the_bound(attempts: int) -> None:
    bound = min(300.0, 0.5 * 2 ** (attempts - 1))
    waits = many(attempts, policy(drawn=Random(SEED)))

    assert len(waits) == 300
    for tenth in range(10):
        assert 10 <= sum(tenth / 10 <= wait / bound < (tenth + 1) / 10 for wait in waits) <= 50


def test_the_same_seed_draws_the_same_waits_and_nothing_else_is_drawn_from() -> None:
    first, again, other = (
        [policy(drawn=source).delay(attempts, None) for attempts in range(1, 20)]
        for source in (Random(SEED), Random(SEED), Random(SEED + 1))
    )

    assert first == again != other


@pytest.mark.parametrize("attempts", [11, 20, 64, 999, 1024, 5000, 10**9])
def test_no_wait_is_longer_than_the_longest_however_many_calls_there_were(attempts: int) -> None:
    assert policy(max_attempts=2 * 10**9, drawn=1.0, longest=300).delay(attempts, None) == 300


@given(
    attempts=st.integers(1, 10**9),
    base=st.floats(0.001, 3600),
    longest=st.floats(0.001, 86_400),
    drawn=st.floats(0, 1),
)
def test_whatever_it_is_asked_a_backoff_is_between_zero_and_the_longest(
    attempts: int, base: float, longest: float, drawn: float
) -> None:
    wait = backoff(attempts, base_seconds=base, max_seconds=longest, rng=lambda: drawn)

    assert math.isfinite(wait)
    assert 0 <= wait <= longest


def test_a_first_wait_as_long_as_the_longest_stays_there() -> None:
    assert policy(base=2.0, longest=2.0, drawn=1.0).delay(7, None) == 2.0


@pytest.mark.parametrize("retry_after", [None, 0.0, 5.0])
def test_after_the_last_call_there_is_no_further_one_whatever_the_api_asks_for(retry_after: float | None) -> None:
    three_calls = policy(max_attempts=3)

    assert three_calls.delay(2, retry_after) is not None
    assert three_calls.delay(3, retry_after) is None
    assert three_calls.delay(4, retry_after) is None
    assert policy(max_attempts=1).delay(1, retry_after) is None


@pytest.mark.parametrize("retry_after", [0.5, 1.0, 60.0, 299.0])
def test_a_retry_after_is_waited_out_with_a_jitter_of_a_tenth_or_a_second_at_most(retry_after: float) -> None:
    least, most = policy(drawn=0.0).delay(1, retry_after), policy(drawn=1.0).delay(1, retry_after)

    assert least == retry_after
    assert most == pytest.approx(retry_after + min(1.0, retry_after / 10))


@pytest.mark.parametrize("retry_after", [0.0, 0.001, 1.0])
def test_a_retry_after_never_shortens_the_backoff(retry_after: float) -> None:
    assert policy(drawn=1.0).delay(6, retry_after) == 16
    assert (policy(drawn=0.0).delay(6, retry_after) or 0) >= retry_after


@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_a_retry_after_beyond_the_longest_wait_is_cut_to_it(drawn: float) -> None:
    a_year = 365 * 24 * 3600.0
    assert policy(longest=300, drawn=drawn).delay(1, a_year) == 300
    assert policy(longest=300, drawn=drawn).delay(1, float("inf")) == 300


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 5.0), (0.5, 7.5), (1.0, 10.0)])
def test_in_an_outage_a_job_waits_for_five_to_ten_seconds(drawn: float, seconds: float) -> None:
    assert policy(drawn=drawn).outage_delay(None) == seconds
    assert policy(drawn=drawn).outage_delay(60) == 60
    assert policy(drawn=drawn, longest=3).outage_delay(60) == 3
