"""``docs/logging.md`` lists every event of the log with its level, its limit and its fields."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.logging_page import rows
from worker.observe.log_limits import LIMITS, Limit

ROOT = Path(__file__).parents[2]
#: Where the events are logged. Jobs that run in-process are their caller's, and his log.
SOURCES = [
    path
    for room in ("tasks", "worker")
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.name not in {"in_process.py", "lock_conversation.py"}
]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT = re.compile(r"[a-z]+(?:_[a-z]+)+")
#: Names of the parts of an outage's or a trouble's lines, which no call names next to its level.
INDIRECT = {
    "redis_unavailable", "redis_still_unavailable", "redis_available", "redis_refuses", "redis_still_refuses",
    "redis_refuses_no_more", "breaker_opened", "breaker_reopened", "breaker_probe_failed", "breaker_still_open",
    "api_available", "token_accepted", "fleet_paused", "fleet_still_paused", "fleet_resumed", "no_resources",
    "still_no_resources", "resources_available", "job_finished",
}  # fmt: skip


class Logged(NamedTuple):
    """What the code logs of an event, as far as its calls show it."""

    levels: set[str]
    fields: set[str]


def logged() -> dict[str, Logged]:
    found: dict[str, Logged] = defaultdict(lambda: Logged(set(), set()))
    for source in SOURCES:
        for call in ast.walk(ast.parse(source.read_text("utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            name, level = call.args[0], call.func.attr
            if level not in LEVELS or not isinstance(name, ast.Constant) or not EVENT.fullmatch(str(name.value)):
                continue
            event = found[str(name.value)]
            event.levels.add("error" if level == "exception" else level)
            extra = [word.value for word in call.keywords if word.arg == "extra"]
            keys = [key for value in extra if isinstance(value, ast.Dict) for key in value.keys]
            event.fields.update(str(key.value) for key in keys if isinstance(key, ast.Constant))
    return found


def test_each_event_that_is_logged_is_listed_and_no_other() -> None:
    assert len(rows()) > 60
    assert set(rows()) == set(logged()) | INDIRECT


def test_each_event_that_no_call_names_is_in_the_code() -> None:
    strings = {
        node.value
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    assert strings >= INDIRECT


@pytest.mark.parametrize("event", sorted(logged()))
def test_its_level_and_fields_are_those_of_the_code(event: str) -> None:
    row, told = rows()[event], logged()[event]

    assert row.levels == told.levels
    assert row.fields >= told.fields


def words(limit: Limit) -> str:
    """A limit as the page tells it."""
    lines = f"{limit.at_once} {'a minute' if limit.seconds == 60 else 'an hour'}"
    kinds = "".join(f" for each `{field}`" for field in limit.by)
    return f"{lines}{kinds}{', INFO' if limit.is_of_a_job else ''}"


def test_its_limit_is_that_of_the_code() -> None:
    assert {name: row.limit for name, row in rows().items() if row.limit} == {
        name: words(limit) for name, limit in LIMITS.items()
    }
