"""When a job is tried again: how long each wait is, and when there is no further call."""

from __future__ import annotations

import pytest

from tasks.retry import RetryPolicy


def policy(*, max_attempts: int = 1000, base: float = 0.5, longest: float = 300.0, chance: float = 0.5) -> RetryPolicy:
    return RetryPolicy(max_attempts=max_attempts, base_seconds=base, max_delay_seconds=longest, chance=lambda: chance)


def drawn(attempts: int, of: RetryPolicy) -> list[float]:
    """Many waits after so many calls."""
    waits = [of.delay(attempts, None) for _ in range(300)]
    return [wait for wait in waits if wait is not None]


@pytest.mark.parametrize(("attempts", "bound"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (10, 256.0)])
def test_a_wait_is_drawn_from_zero_to_a_bound_that_doubles_with_each_call(attempts: int, bound: float) -> None:
    waits = drawn(attempts, policy())

    assert len(waits) == 300
    assert 0 <= min(waits) < bound * 0.1
    assert bound * 0.9 < max(waits) <= bound
    assert bound * 0.4 < sum(waits) / len(waits) < bound * 0.6


@pytest.mark.parametrize("attempts", [11, 20, 64, 999])
def test_no_wait_is_longer_than_the_longest_however_many_calls_there_were(attempts: int) -> None:
    waits = drawn(attempts, policy(longest=300))

    assert 270 < max(waits) <= 300
    assert min(waits) < 30


def test_a_first_wait_as_long_as_the_longest_stays_there() -> None:
    assert max(drawn(7, policy(base=2.0, longest=2.0))) <= 2.0


@pytest.mark.parametrize("retry_after", [None, 0.0, 5.0])
def test_after_the_last_call_there_is_no_further_one_whatever_the_api_asks_for(retry_after: float | None) -> None:
    three_calls = policy(max_attempts=3)

    assert three_calls.delay(2, retry_after) is not None
    assert three_calls.delay(3, retry_after) is None
    assert three_calls.delay(4, retry_after) is None
    assert policy(max_attempts=1).delay(1, retry_after) is None


@pytest.mark.parametrize("retry_after", [0.5, 1.0, 60.0, 299.0])
def test_a_retry_after_is_waited_out_and_stretched_by_a_tenth_or_a_second_at_most(retry_after: float) -> None:
    least, most = policy(chance=0.0).delay(1, retry_after), policy(chance=1.0).delay(1, retry_after)

    assert least == retry_after
    assert most == pytest.approx(retry_after + min(1.0, retry_after / 10))


@pytest.mark.parametrize("retry_after", [0.0, 0.001, 1.0])
def test_a_retry_after_never_shortens_the_backoff(retry_after: float) -> None:
    waits = [policy().delay(6, retry_after) or 0.0 for _ in range(300)]

    assert max(waits) > 14
    assert min(waits) >= retry_after


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_retry_after_beyond_the_longest_wait_is_cut_to_it(chance: float) -> None:
    a_year = 365 * 24 * 3600.0
    assert policy(longest=300, chance=chance).delay(1, a_year) == 300
    assert policy(longest=300, chance=chance).delay(1, float("inf")) == 300
