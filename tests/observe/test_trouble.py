"""What the log tells of trouble with the API: its begin, each minute a count, and once when it is over."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.flow_control.clock import Clock
from worker.observe.outages import QUIET_SECONDS, REPEAT_SECONDS
from worker.observe.trouble import Trouble

LOUD = ("ERROR", "WARNING")


class Log:
    """A trouble on a clock of its own, and the lines that came of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture, **options: Any) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.clock = Clock()
        self.trouble = Trouble(logging.getLogger(__name__), lasts="lasts", ends="ends", clock=self.clock, **options)

    def fail(self, seconds: float, every: float = 5.0, what: str = "failed") -> None:
        for _ in range(int(seconds / every)):
            self.trouble.happened("it", what, reason="why")
            self.clock.wait(every)

    @property
    def loud(self) -> list[str]:
        return [record.message for record in self._caplog.records if record.levelname in LOUD]

    @property
    def quiet(self) -> list[str]:
        return [record.message for record in self._caplog.records if record.levelname == "INFO"]

    @property
    def last(self) -> dict[str, Any]:
        return vars([record for record in self._caplog.records if record.levelname in LOUD][-1])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def test_it_is_loud_once_a_minute_and_each_event_is_a_line_at_info(log: Log) -> None:
    log.fail(2 * REPEAT_SECONDS + 1)

    assert log.loud == ["it", "lasts"]
    assert len(log.quiet) == 23
    log.fail(6)
    assert log.loud == ["it", "lasts", "lasts"]
    assert (log.last["seconds"], log.last["counts"], log.last["reason"]) == (120.0, {"failed": 25}, "why")
    assert log.last["levelname"] == "ERROR"


def test_its_end_is_told_once_with_how_long_it_was_and_how_often_it_happened(log: Log) -> None:
    log.fail(30)
    log.fail(10, what="failed_otherwise")

    log.trouble.over(reason="why")
    log.trouble.over(reason="why")

    assert log.loud == ["it", "ends"]
    assert (log.last["seconds"], log.last["counts"]) == (40.0, {"failed": 6, "failed_otherwise": 2})
    assert (log.last["levelname"], log.last["reason"]) == ("WARNING", "why")


def test_what_never_began_has_no_end(log: Log) -> None:
    log.trouble.over()

    assert log.loud == []


def test_trouble_that_comes_and_goes_is_one_trouble(log: Log) -> None:
    for _ in range(100):
        log.trouble.happened("it", "failed")
        log.clock.wait(1.0)
        log.trouble.over()
        log.clock.wait(1.0)
    assert log.loud == ["it", "ends", "lasts", "lasts", "lasts"]

    log.clock.wait(QUIET_SECONDS)
    log.trouble.over()
    assert log.loud[5:] == ["ends"]
    assert log.last["counts"] == {"failed": 100}


def test_the_next_trouble_is_told_again_also_where_the_end_of_the_last_one_was_not(log: Log) -> None:
    for _ in range(3):
        log.trouble.happened("it", "failed")
        log.trouble.over()
    assert log.loud == ["it", "ends"]

    log.clock.wait(3600.0)
    log.trouble.happened("it", "failed")

    assert log.loud == ["it", "ends", "ends", "it"]


def test_events_of_each_call_are_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog, are_repeats_logged=False, level=logging.WARNING)

    log.fail(REPEAT_SECONDS + 1, every=0.1)

    assert log.quiet == []
    assert log.loud == ["it", "lasts"]
    assert log.last["levelname"] == "WARNING"
