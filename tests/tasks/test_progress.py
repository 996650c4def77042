"""What a job's next delivery knows of its calls, from the text in its record."""

from __future__ import annotations

import pytest

from tasks.history import HistoryEntry
from tasks.outcome import Problem, ProblemType
from tasks.progress import Progress, from_bytes

CALLS = Progress(
    Problem(ProblemType.TIMEOUT, "too late", None),
    may_be_at_work=True,
    load_refusals=1,
    token_refusals=2,
    answered=3,
    faults=4,
)


HISTORY = (HistoryEntry(1_000, "delay", reason="eta", wait_seconds=1.5), HistoryEntry(2_500, "call", 503, "timeout"))


@pytest.mark.parametrize(
    "progress",
    [Progress(), CALLS, Progress(answered=0), Progress(deliveries=2), Progress(history=HISTORY)],
)
def test_what_is_stored_is_what_is_read(progress: Progress) -> None:
    assert from_bytes(progress.to_bytes()) == progress


def test_a_job_that_nothing_is_known_of_stores_nothing() -> None:
    assert Progress().to_bytes() == b""


def test_a_number_of_deliveries_is_no_knowledge_of_calls() -> None:
    assert CALLS.knows_calls
    assert Progress(answered=0).knows_calls
    assert not Progress(deliveries=2).knows_calls


def test_deliveries_that_nobody_counted_are_not_stored() -> None:
    assert Progress(faults=1).to_bytes() == b"[null,0,0,0,null,1]"
    assert Progress(faults=1, deliveries=2).to_bytes() == b"[null,0,0,0,null,1,2]"


def test_a_history_of_delays_is_no_knowledge_of_calls() -> None:
    assert not Progress(history=HISTORY[:1]).knows_calls


def test_a_damaged_history_costs_nothing_else_that_is_known() -> None:
    assert from_bytes(b'[null,0,0,0,null,1,2,[["x"]]]') == Progress(faults=1, deliveries=2)


@pytest.mark.parametrize("text", [b"", b"no json", b"[]", b"[1]", b'[null,0,0,0,null,0,"x"]', b"{}"])
def test_any_other_text_means_nothing_known(text: bytes) -> None:
    assert from_bytes(text) == Progress()
