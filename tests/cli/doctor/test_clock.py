"""The clock of Redis is compared with this machine's; the time that the question took is nobody's fault."""

from __future__ import annotations

import pytest

from worker.cli.doctor.redis_checks import clock


@pytest.mark.parametrize(
    ("server", "began", "ended", "level"),
    [
        (1000.0, 1000.0, 1000.1, "ok"),
        (1001.0, 1000.0, 1004.0, "ok"),
        (1007.0, 1000.0, 1000.1, "warning"),
        (993.0, 1000.0, 1000.1, "warning"),
    ],
)
def test_clocks_that_are_apart_are_told(server: float, began: float, ended: float, level: str) -> None:
    (check,) = clock(server, began, ended)
    assert check.level == level
