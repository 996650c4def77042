"""RFC 3339 times, to the letter.

Python's own parser takes much more (dates alone, week dates, times without an offset), and no leap second.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_SHAPE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:(?P<second>[0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_LONGEST = 64
"""Nanoseconds need 35 characters; what is longer is no time that a clock has told."""


def parse(text: str) -> datetime:
    """The moment (aware) that a text tells.

    Raises:
        ValueError: it is no RFC 3339 time, or one that no calendar has.
    """
    shape = _SHAPE.fullmatch(text) if len(text) <= _LONGEST else None
    if shape is None:
        raise ValueError("is no RFC 3339 time")
    leap = shape["second"] == "60"
    if leap:
        text = f"{text[: shape.start('second')]}59{text[shape.end('second') :]}"
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment + timedelta(seconds=1) if leap else moment
    except (ValueError, OverflowError):
        raise ValueError("is no time of the calendar") from None  # Python's own words would quote it
