"""How a value out of a message may appear in a text for people.

A refusal's detail goes to logs, events and screens, and a message may hold anything: personal text, megabytes,
control characters. So a value is only ever named by its kind and size, and a name or an option's value is quoted
short and printable.
"""

from __future__ import annotations

from typing import Any

_QUOTED_CHARACTERS = 24


def quoted(value: Any) -> str:
    """A name or an option's value: a string in quotes, cut to a few printable characters; of anything else its kind."""
    if not isinstance(value, str):
        return kind(value)
    if len(value) <= _QUOTED_CHARACTERS:
        return repr(value)
    return f"{value[:_QUOTED_CHARACTERS]!r}..."


def kind(value: Any) -> str:  # noqa: PLR0911 - one line for each kind that JSON has
    """What a JSON value is, with its size, and nothing of what it says."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "an empty string" if not value else f"a string of {_counted(len(value), 'character')}"
        case list() | tuple():
            return "an empty list" if not value else f"a list of {_counted(len(value), 'value')}"
        case dict():
            return "an empty object" if not value else f"an object of {_counted(len(value), 'field')}"
        case _:
            return f"a {type(value).__name__}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
