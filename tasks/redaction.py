"""How a value out of a message may appear in a text for people.

A refusal's detail goes to logs, events and screens, and a message may hold anything: personal text, megabytes,
control characters. So a value is only ever named by its kind and size. A name or an option's value is quoted so that it
is printable: whole where it has the form of a name, so that a slip in it can be found; else its beginning.
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
    """A name or an option's value: a string in quotes, or its beginning if it is long; of anything else its kind."""
    if not isinstance(value, str):
        return describe(value)
    beginning = value[:_MAX_NAME_CHARACTERS]
    if not _NAME.fullmatch(beginning):
        beginning = value[:_QUOTED_CHARACTERS]
    return repr(value) if len(beginning) == len(value) else f"{beginning!r}..."


def describe(value: Any) -> str:  # noqa: PLR0911 - one line for each kind that JSON has
    """What a JSON value is, with its size, and nothing of what it says."""
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
