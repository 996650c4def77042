"""Estimates the cost of reading a JSON text, and reads costly ones quickly.

The cost depends on the number of values and not on the length: a megabyte of one string is read in two milliseconds, a
megabyte of small lists in more than a hundred, mostly for Python's garbage collector. A caller that must not block for
so long checks first. It reads a text of too many values with a faster reader, which does not check what
:mod:`tasks.strict_json` refuses.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json


def holds_more_values(data: bytes, max_values: int) -> bool:
    """Return True if a JSON text in UTF-8 holds more than about ``max_values``; takes some milliseconds a megabyte.

    It counts commas and opening brackets outside of strings. In invalid JSON it counts at least what comes before the
    error, which is as far as a reader comes.
    """
    if len(data) <= max_values or _marks(data) <= max_values:
        return False
    without_escapes = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A value has two strings at most, itself and its name, and a string has two quotation marks.
    if without_escapes.count(b'"') > 4 * max_values:
        return True
    outside_of_strings = b"".join(without_escapes.split(b'"')[::2])
    return _marks(outside_of_strings) > max_values


def read_loosely(data: bytes, *, max_containers: int) -> Any:
    """Read a JSON text quickly; of a name that an object holds twice, the last one counts.

    Raises:
        ValueError: it is no JSON, or holds more lists and objects than that (brackets in strings count too).
    """
    if data.count(b"[") + data.count(b"{") > max_containers:
        raise ValueError("holds too many lists and objects")
    return from_json(data, allow_inf_nan=False, cache_strings="none")


def _marks(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")
