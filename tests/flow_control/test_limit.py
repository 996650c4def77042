"""The fleet's rate: how it is cut, and how it rises again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.flow_control import limit as limits
from worker.flow_control.limit import LOWEST_RATE, NO_LIMIT, Limit, LoadRefusal

BEGAN = 1_000_000.0


def cut(
    limit: Limit = NO_LIMIT, *, at: float = 0.0, accepted: int = 100, per_second: float = 20.0,
    retry_after: float | None = None,
) -> tuple[Limit, float]:  # fmt: skip
    refusal = LoadRefusal(429, retry_after, accepted, per_second)
    return limits.cut(limit, refusal, now_ms=BEGAN + at * 1000, by="pod", max_pause=300)


def climb(limit: Limit, *, since: float, until: float, used: float = 1.0) -> Limit:
    """Half a second after half a second in which so much of the rate was used."""
    at = since
    while at < until:
        at += 0.5
        raised = limits.raised(
            limit, now_ms=BEGAN + at * 1000, accepted=limit.accepted_at_cut + 1000,
            accepted_per_second=used * limit.rate,
        )  # fmt: skip
        limit = raised or limit
    return limit


def test_the_first_refusal_cuts_to_a_little_less_than_what_was_accepted_and_begins_with_half() -> None:
    limit, pause = cut()

    assert limit.target == pytest.approx(19.4)
    assert limit.rate == pytest.approx(9.7)
    assert pause == 0.5


def test_the_api_may_ask_for_a_longer_pause_and_not_for_none() -> None:
    assert cut(retry_after=7.0)[1] == 7.0
    assert cut(retry_after=0.0)[1] == 0.5


def test_refusals_before_anything_was_accepted_make_pauses_longer_and_keep_what_is_known() -> None:
    limit, _ = cut()
    pauses = []
    for second in range(1, 10):
        limit, pause = cut(limit, at=60.0 * second)
        pauses.append(pause)

    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert limit.target == pytest.approx(19.4)
    assert limit.rate <= 1


def test_what_was_on_its_way_at_the_cut_was_not_accepted_at_the_new_rate() -> None:
    limit, _ = cut()

    again, _ = cut(limit, at=0.51, accepted=150)

    assert again.refusals == 2


def test_the_rate_is_back_where_it_was_cut_to_within_a_second_and_at_the_ceiling_after_the_climb() -> None:
    limit, _ = cut()

    assert climb(limit, since=0.5, until=1.5).rate == pytest.approx(19.4, rel=0.01)
    assert climb(limit, since=0.5, until=5.5).rate == pytest.approx(20, rel=0.02)
    assert climb(limit, since=0.5, until=20).rate > 24


def test_a_rate_that_is_not_used_does_not_rise_and_is_forgotten_in_the_end() -> None:
    limit, _ = cut()
    limit = climb(limit, since=0.5, until=3)

    assert climb(limit, since=3, until=100, used=0.1).rate == limit.rate
    assert climb(limit, since=3, until=700, used=0.1).rate == 0


def test_a_ceiling_that_is_confirmed_is_climbed_to_more_slowly() -> None:
    limit, _ = cut()
    holds = []
    for number in range(1, 7):
        limit = replace(limit, rate=20.2)
        limit, _ = cut(limit, at=100 * number, accepted=100 + 1900 * number)
        holds.append(limit.hold_seconds)

    assert holds == [10, 20, 40, 80, 120, 120]


def test_a_quota_by_the_minute_is_known_by_the_waits() -> None:
    limit, _ = cut(accepted=60, per_second=60.0, retry_after=59.0)

    limit, _ = cut(replace(limit, rate=58.0), at=61.0, accepted=120, per_second=60.0)

    assert limit.ceiling == pytest.approx(60 / 61, rel=0.01)
    assert limit.hold_seconds > 100


def test_a_server_whose_clock_was_set_back_does_not_stop_the_climb_for_hours() -> None:
    limit = replace(cut()[0], changed_ms=round(BEGAN + 7_200_000), cut_ms=round(BEGAN + 7_200_000))

    raised = limits.raised(limit, now_ms=BEGAN, accepted=200, accepted_per_second=20)

    assert raised is not None
    assert raised.changed_ms == BEGAN


@given(text=st.one_of(st.binary(max_size=60), st.sampled_from([b"[]", b"{}", b'{"rate": -1}', b"null", b"NaN"])))
def test_whatever_stands_in_redis_instead_is_no_limit(text: bytes) -> None:
    assert limits.from_json(text) == NO_LIMIT


@given(
    rate=st.floats(LOWEST_RATE, 1e4), ceiling=st.floats(0, 1e4), accepted=st.integers(0, 10**6),
    per_second=st.floats(0, 1e5), at=st.floats(0, 1e5), retry_after=st.none() | st.floats(0, 300),
)  # fmt: skip
def test_a_cut_never_raises_and_a_pause_is_never_endless(
    *, rate: float, ceiling: float, accepted: int, per_second: float, at: float, retry_after: float | None
) -> None:
    before = Limit(rate=rate, target=0.97 * ceiling, ceiling=ceiling, began_ms=round(BEGAN), cut_ms=round(BEGAN))

    after, pause = cut(before, at=at, accepted=accepted, per_second=per_second, retry_after=retry_after)

    assert LOWEST_RATE <= after.rate <= max(rate, ceiling, 1.0)
    assert 0 < pause <= 300
    assert limits.from_json(after.to_json()) == after
