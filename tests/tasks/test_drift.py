"""How a deviation from the documented shape is labelled: by documented field, and all else by one word."""

from __future__ import annotations

import pytest

from tasks import drift
from tasks.managem.conversation import DOCUMENTED_FIELDS
from worker.observe import jobs, metrics


def counted(field: str) -> float | None:
    return metrics.REGISTRY.get_sample_value("lock_worker_answer_drift_total", {"field": field})


@pytest.mark.parametrize(
    ("note", "field"),
    [
        ("lastMessage.viewedAt: Input should be a valid string", "lastMessage.viewedAt"),
        ("lastMessage.attachments[].url: Input should be a valid string", "lastMessage.attachments[].url"),
        ("lastMessage.sender.id: held half a character, told as U+FFFD", "lastMessage.sender.id"),
        ("source.*: has over 200 levels, told as null", "other"),
        ("*: held half a character: twice", "other"),
        ("conversation: is cut off", "other"),
    ],
)
def test_a_deviation_is_labelled_by_its_documented_field(note: str, field: str) -> None:
    deviation = drift.parse(note)

    assert deviation.field == field
    assert f"{deviation.path}: {deviation.problem}" == note


def test_the_labels_are_few_and_each_series_stands_at_zero_from_the_start() -> None:
    assert {"id", "userB.rating", "lastMessage.attachments[]", "lastMessage.sender.joined"} <= DOCUMENTED_FIELDS
    assert len(DOCUMENTED_FIELDS) < 70
    assert all(counted(field) is not None for field in (*DOCUMENTED_FIELDS, drift.OTHER))


def test_an_answer_counts_once_for_each_field_in_which_it_deviates() -> None:
    before = counted("other"), counted("userA.id")
    assert before != (None, None)

    jobs.answer_drifted("job-1", [drift.parse(note) for note in ("userA.id: no text", "*: odd", "source.*: odd")])

    assert (counted("other"), counted("userA.id")) == ((before[0] or 0) + 1, (before[1] or 0) + 1)
