"""What a Retry-After header means, in seconds and as a date, with sense and without."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.retry_after import parse_retry_after

NOW = datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)


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


def test_the_wait_until_a_date_keeps_fractions_of_a_second() -> None:
    assert parse_retry_after("Sun, 22 Nov 2026 15:04:06 GMT", NOW + timedelta(milliseconds=250)) == 0.75


@pytest.mark.parametrize(
    "header",
    [
        None, "", " ", "-5", "+5", "1.5.2", ".", "1e3", "0x10", "soon", "60 seconds", "10, 20", "NaN", "inf", "٣", "²",
        "Wed, 99 Nov 2026 00:00:00 GMT", "Sun, 22 Nov 2026 25:00:00 GMT",
    ],
)  # fmt: skip
def test_an_invalid_retry_after_is_none(header: str | None) -> None:
    assert parse_retry_after(header, NOW) is None


def test_a_number_of_any_length_is_a_wait_and_a_larger_number_is_no_shorter_wait() -> None:
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
