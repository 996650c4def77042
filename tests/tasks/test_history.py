"""A job's history: its last calls and delays, short while it waits, and as the event tells them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import history
from tasks.event import HistoryStep
from tasks.history import MAX_ENTRIES, History, from_stored, to_stored, with_call, with_delay, with_wait

NOON = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
FAILED: dict[str, Any] = {"status": 503, "error": "server_error"}


def test_an_entry_is_told_with_its_time_and_all_its_fields() -> None:
    told = with_wait(with_call(with_delay((), NOON, reason="eta", seconds=1.5), NOON, **FAILED), 0.25)

    none = {"status": None, "error": None, "reason": None, "wait_seconds": None}
    assert [entry.as_fields() for entry in told] == [
        {**none, "time": "2026-11-22T12:00:00.250Z", "what": "delay", "reason": "eta", "wait_seconds": 1.5},
        {**none, **FAILED, "time": "2026-11-22T12:00:00.250Z", "what": "call", "wait_seconds": 0.25},
    ]
    for entry in told:
        HistoryStep.model_validate_json(json.dumps(entry.as_fields()))


def test_only_the_last_ten_are_kept() -> None:
    told: History = ()
    for number in range(MAX_ENTRIES + 3):
        told = with_call(told, NOON + timedelta(seconds=number), **FAILED)

    assert len(told) == MAX_ENTRIES
    assert told[0].time == NOON + timedelta(seconds=3)
    assert told[-1].time == NOON + timedelta(seconds=MAX_ENTRIES + 2)


def test_what_is_stored_is_what_is_read() -> None:
    told = with_wait(with_call(with_delay((), NOON, reason="eta", seconds=1.5), NOON, **FAILED), 0.25)
    told = with_call(told, NOON, reason=history.INTERRUPTED)

    assert from_stored(to_stored(told)) == told


@pytest.mark.parametrize("damaged", [None, {}, "x", [None], [[]], [[1]], [[1e300, 0, None, None, None, None]]])
def test_a_damaged_history_is_no_history(damaged: Any) -> None:
    assert from_stored(damaged) == ()


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_nothing_that_a_record_may_hold_makes_it_fail(stored: Any) -> None:
    for entry in from_stored(stored):
        assert entry.as_fields()


def test_a_wait_without_a_call_before_it_is_not_noted() -> None:
    assert with_wait((), 1.0) == ()
