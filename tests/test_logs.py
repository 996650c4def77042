"""Log lines: whatever is logged, there is one JSON object a line."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from worker.observe.logs import JsonLines, Record


def line_of(message: object, *arguments: object, raised: Exception | None = None, **fields: Any) -> dict[str, Any]:
    """What a handler writes of one record."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    exc_info = (type(raised), raised, None) if raised is not None else None
    record = Record("worker.executor", logging.WARNING, "", 0, message, arguments, exc_info)
    vars(record).update(fields)
    handler.handle(record)
    (line,) = out.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_the_event_its_fields_the_level_the_logger_and_the_time() -> None:
    line = line_of("job_finished", job="j-1", attempts=2, error=None)

    time = line.pop("timestamp")
    assert line == {
        "event": "job_finished", "job": "j-1", "attempts": 2, "error": None,
        "level": "warning", "logger": "worker.executor",
    }  # fmt: skip
    assert time.endswith("Z")
    assert len(time) == len("2026-11-22T15:04:05.123456Z")


def test_arguments_are_put_into_the_message() -> None:
    assert line_of("connected to %s", "redis")["event"] == "connected to redis"
    assert line_of("task %(name)s", {"name": "lock"})["event"] == "task lock"


def test_an_error_brings_its_traceback() -> None:
    assert "ValueError: no" in line_of("job_error", raised=ValueError("no"))["exception"]


@pytest.mark.parametrize("value", ["half \ud800 a pair", b"\xff", object, {1, 2}, 10**400, "two\nlines", float("inf")])
def test_any_value_gives_a_line(value: object) -> None:
    assert line_of("event", value=value)["event"] == "event"
