"""Time spans as people read them."""

from __future__ import annotations

import pytest

from worker.cli.durations import duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (179.7, "2 min 59 s"),
        (3599.9, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_time_span_never_shows_sixty_of_a_unit(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
