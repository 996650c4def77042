"""Reads RFC 3339 times strictly, and the times that Celery writes.

Python's own parser accepts much more: dates alone, week dates, a row of digits as a time in the year 1764. It accepts
no leap second, and different texts in different Python versions.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

_DATE_AND_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?P<second>[0-5][0-9]|60)(?:\.[0-9]+)?"
_OFFSET = r"[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]"
_RFC_3339 = re.compile(f"{_DATE_AND_TIME}(?:{_OFFSET})")
# What datetime.isoformat writes: without an offset for a naive time, and with seconds in the offset for some old zones.
_ISOFORMAT = re.compile(rf"{_DATE_AND_TIME}(?P<offset>{_OFFSET}(?::[0-5][0-9](?:\.[0-9]{{6}})?)?)?")
MAX_CHARACTERS = 64
"""Nanoseconds need 35 characters; a longer text is no time of a real clock."""
PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
"""The shape alone, for a JSON Schema and for the model of an answer: any digits, whatever they say."""


def parse(text: str) -> datetime:
    """Return the time (aware) that a text names.

    Raises:
        ValueError: it is no RFC 3339 time, or the calendar does not have it.
    """
    shape = _RFC_3339.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if shape is None:
        naive = _ISOFORMAT.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
        raise ValueError("names no offset from UTC" if naive and not naive["offset"] else "is no RFC 3339 time")
    return _read(shape)


def parse_isoformat(text: str) -> tuple[datetime, bool]:
    """Return the time (in UTC) that a text names, and True if it has no offset and was read as UTC.

    Accepts RFC 3339 and what Python's ``datetime.isoformat`` writes, which is what Celery sends.

    Raises:
        ValueError: it is another text, or the calendar does not have the time.
    """
    shape = _ISOFORMAT.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if shape is None:
        raise ValueError("is no RFC 3339 time")
    time = _read(shape)
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC), True
    try:
        return time.astimezone(UTC), False
    except OverflowError:
        raise ValueError("is no time of the calendar") from None


def is_isoformat(value: Any) -> bool:
    """Return True if a value is a text in a form that :func:`parse_isoformat` accepts."""
    return isinstance(value, str) and len(value) <= MAX_CHARACTERS and _ISOFORMAT.fullmatch(value) is not None


def _read(shape: re.Match[str]) -> datetime:
    text = shape.string
    leap = shape["second"] == "60"
    if leap:
        text = f"{text[: shape.start('second')]}59{text[shape.end('second') :]}"
    try:
        time = datetime.fromisoformat(text.upper())
        return time + timedelta(seconds=1) if leap else time
    except (ValueError, OverflowError):
        raise ValueError("is no time of the calendar") from None  # Python's error would quote the text
