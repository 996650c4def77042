"""How often one kind of trouble is logged: at once, then once a time with a count, and nothing is lost of the count."""

from __future__ import annotations

import ast
import io
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker.observe.log_limits import LIMITS, Limit, LogLimits
from worker.observe.logs import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TABLE = {
    "loop": Limit(seconds=60),
    "drift": Limit(seconds=3600, by=("field",)),
    "of_a_job": Limit(seconds=60, at_once=3, is_of_a_job=True),
}


class Log:
    """A logger with a limited handler, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.limits = LogLimits(TABLE, now=lambda: self.now)
        self._out = io.StringIO()
        self.handler = logging.StreamHandler(self._out)
        self.handler.setFormatter(JsonLines())
        self.handler.addFilter(self.limits)

    def say(self, event: str, level: int = logging.WARNING, **fields: Any) -> None:
        record = logging.LogRecord("worker", level, "", 0, event, (), fields.pop("exc_info", None))
        vars(record).update(fields)
        self.handler.handle(record)

    def lines(self) -> list[dict[str, Any]]:
        """What was written since this was asked last."""
        found = [json.loads(line) for line in self._out.getvalue().splitlines()]
        self._out.seek(0)
        self._out.truncate()
        return found


@pytest.fixture
def log() -> Iterator[Log]:
    found, logger, root = Log(), logging.getLogger("worker"), logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [found.handler], False
    yield found
    logger.handlers, logger.propagate = [], True
    root.setLevel(level)


def test_the_first_is_logged_at_once_and_the_others_are_counted_each_minute(log: Log) -> None:
    for _ in range(301):
        log.say("loop", error="one")
        log.now += 0.5
        log.limits.flush()

    lines = log.lines()

    assert [line.get("count") for line in lines] == [None, 119, 120]
    assert [line.get("seconds") for line in lines] == [None, 60.0, 60.0]
    assert {(line["event"], line["level"], line["error"]) for line in lines} == {("loop", "warning", "one")}


def test_what_happens_once_and_again_much_later_is_logged_each_time_without_a_count(log: Log) -> None:
    for _ in range(3):
        log.say("loop")
        log.now += 61
        log.limits.flush()

    assert [line.get("count") for line in log.lines()] == [None, None, None]


def test_where_nobody_looks_the_next_one_carries_the_count(log: Log) -> None:
    for _ in range(10):
        log.say("loop")
    log.now += 100
    log.say("loop")

    assert [(line.get("count"), line.get("seconds")) for line in log.lines()] == [(None, None), (10, 100.0)]


def test_the_end_of_the_process_leaves_no_count_untold(log: Log) -> None:
    for _ in range(5):
        log.say("loop")
    log.now += 3

    log.limits.flush(is_end=True)
    log.limits.flush(is_end=True)

    assert [(line.get("count"), line.get("seconds")) for line in log.lines()] == [(None, None), (4, 3.0)]


def test_kinds_that_a_field_tells_apart_are_limited_each_for_itself(log: Log) -> None:
    for number in range(20):
        log.say("drift", field=f"field-{number % 2}", job=f"job-{number}")
    log.now += 3600
    log.limits.flush()

    assert [(line["field"], line.get("count")) for line in log.lines()] == [
        ("field-0", None), ("field-1", None), ("field-0", 9), ("field-1", 9),
    ]  # fmt: skip


def test_of_jobs_each_is_a_line_at_info_and_a_few_are_warnings(log: Log) -> None:
    for number in range(100):
        log.say("of_a_job", job=f"job-{number}")
    log.now += 60
    log.limits.flush()

    lines = log.lines()

    assert [line["level"] for line in lines] == ["warning"] * 3 + ["info"] * 97 + ["warning"]
    assert [line["job"] for line in lines[:100]] == [f"job-{number}" for number in range(100)]
    assert lines[-1]["count"] == 97


def test_only_those_that_are_warnings_show_a_traceback(log: Log) -> None:
    error = ZeroDivisionError("by zero")
    for _ in range(5):
        log.say("of_a_job", logging.ERROR, exc_info=(type(error), error, None))
    log.limits.flush(is_end=True)

    assert ["exception" in line for line in log.lines()] == [True, True, True, False, False, False]


def test_without_info_jobs_are_only_counted(log: Log) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    for number in range(100):
        log.say("of_a_job", job=f"job-{number}")
    log.limits.flush(is_end=True)

    assert [line.get("count") for line in log.lines()] == [None, None, None, 97]


def test_what_has_no_limit_and_what_is_no_warning_is_logged_as_it_comes(log: Log) -> None:
    for _ in range(5):
        log.say("unlimited")
        log.say("loop", logging.INFO)

    assert len(log.lines()) == 10


def test_many_kinds_do_not_fill_the_memory(log: Log) -> None:
    for number in range(5000):
        log.say("drift", field=str(number))

    assert len(log.limits._kinds) <= 500


def test_each_event_with_a_limit_is_one_that_is_logged() -> None:
    sources = [path.read_text("utf-8") for room in ("tasks", "worker") for path in sorted((ROOT / room).rglob("*.py"))]
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    logged = {call.args[0].value for call in calls if call.args and isinstance(call.args[0], ast.Constant)}

    assert set(LIMITS) <= logged
