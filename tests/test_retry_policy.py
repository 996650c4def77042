"""When a job is tried again: how long each wait is, when there is no further call, and what a Retry-After means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.retry import RetryPolicy, parse_retry_after

NOW = datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("0.0", 0.0),
        ("31536000", 31_536_000.0),
        ("Sun, 22 Nov 2026 15:04:35 GMT", 30.0),
        ("Sun, 22 Nov 2026 16:04:35 +0100", 30.0),
        # The two obsolete forms that RFC 9110 (section 5.6.7) says a recipient must read as well.
        ("Sunday, 22-Nov-26 15:04:35 GMT", 30.0),
        ("Sun Nov 22 15:04:35 2026", 30.0),
        ("Sun, 22 Nov 2026 15:04:05 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
    ],
)
def test_a_retry_after_is_read_in_seconds_and_as_a_date(header: str, seconds: float) -> None:
    assert parse_retry_after(header, NOW) == seconds


def test_a_date_is_measured_to_the_part_of_a_second() -> None:
    assert parse_retry_after("Sun, 22 Nov 2026 15:04:06 GMT", NOW + timedelta(milliseconds=250)) == 0.75


@pytest.mark.parametrize(
    "header",
    [
        None, "", " ", "-5", "+5", "1.5.2", ".", "1e3", "0x10", "soon", "60 seconds", "10, 20", "NaN", "inf", "٣", "²",
        "Wed, 99 Nov 2026 00:00:00 GMT", "Sun, 22 Nov 2026 25:00:00 GMT",
    ],
)  # fmt: skip
def test_a_retry_after_without_sense_is_none(header: str | None) -> None:
    assert parse_retry_after(header, NOW) is None


def test_a_number_of_any_length_is_a_wait_and_a_larger_one_no_shorter() -> None:
    waits = [parse_retry_after("9" * digits, NOW) for digits in (1, 5, 10, 11, 12, 13, 100, 8000)]

    assert None not in waits
    assert all(shorter <= longer for shorter, longer in pairwise(wait or 0.0 for wait in waits))


def test_leading_zeros_change_no_number() -> None:
    assert parse_retry_after("0" * 20 + "5", NOW) == 5.0


PIECES = st.sampled_from(
    ["Sun", ",", "06", "Nov", "1994", "9999", "0", "08:49:37", "24:00", "GMT", "+2359", "-9999", "-0000", "  "]
)


@settings(deadline=None)
@given(st.text() | st.lists(PIECES).map(" ".join) | st.lists(PIECES).map("".join))
def test_no_header_whatever_it_holds_raises_or_asks_for_a_wait_into_the_past(header: str) -> None:
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or seconds >= 0
