"""The events that the worker logs, as its source names them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
#: Methods that write a warning or worse: those of loggers, and the breaker's own.
_TROUBLES = {"warning", "error", "exception", "critical", "log", "_log", "_open"}
_EVENT = re.compile(r"[a-z]+(_[a-z]+)+")


def sources() -> list[ast.Module]:
    """What the worker is made of."""
    return [
        ast.parse(path.read_text("utf-8"))
        for room in ("tasks", "worker")
        for path in sorted((ROOT / room).rglob("*.py"))
    ]


def troubles() -> set[str]:
    """The events of all log lines that may be warnings or worse."""
    return {name for source in sources() for call in _calls(source) for name in _events(call)}


def _calls(source: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _TROUBLES:
            yield node


def _events(call: ast.Call) -> Iterator[str]:
    """The names among the arguments, also in ``"one" if ... else "other"``; no fields, which go by keyword."""
    for argument in call.args:
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _EVENT.fullmatch(node.value):
                yield node.value
