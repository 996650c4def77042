"""Describes values from messages in texts for people, without their contents.

The detail of a rejection goes to logs, events and screens, and a message may hold anything: personal text, megabytes,
control characters. So a value is described only by its kind and size. Names and option values are quoted in printable
form: whole if they look like a name, so that a misspelling can be found, else only their beginning.
"""

from __future__ import annotations

import re
from typing import Any

from tasks.celery_json import python_type
from tasks.plural import plural

_QUOTED_CHARACTERS = 24
_MAX_NAME_CHARACTERS = 100
# Names of tasks and fields, media types, encodings, and times.
_NAME = re.compile(r"[\w.:/+-]+")


def shorten(value: Any) -> str:
    """Return a name or an option's value in quotes, shortened if it is long; for a value of another type, its kind."""
    if not isinstance(value, str):
        return describe(value)
    beginning = value[:_MAX_NAME_CHARACTERS]
    if not _NAME.fullmatch(beginning):
        beginning = value[:_QUOTED_CHARACTERS]
    return repr(value) if len(beginning) == len(value) else f"{beginning!r}..."


def describe(value: Any) -> str:  # noqa: PLR0911 - one line for each kind that JSON has
    """Return the kind and size of a JSON value, without its contents."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "an empty string" if not value else f"a string of {plural(len(value), 'character')}"
        case list() | tuple():
            return "an empty list" if not value else f"a list of {plural(len(value), 'value')}"
        case dict() if python_type(value):
            return f"a Python {python_type(value)} as Celery's JSON writes it"
        case dict():
            return "an empty object" if not value else f"an object of {plural(len(value), 'field')}"
        case _:
            return f"a {type(value).__name__}"
