"""Reads and writes time spans as people do."""

from __future__ import annotations

import re

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SPAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
#: The longest time span that is read.
MAX_SECONDS = 365 * _DAY


def duration(seconds: float) -> str:
    """Return a time span as text for people."""
    seconds = max(0.0, seconds)
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def seconds_in(text: str) -> int:
    """Return the seconds of a time span such as ``90s``, ``10m``, ``1h30m`` or ``2d``.

    Raises:
        ValueError: it is none, or not over 0 and up to 365 days; the error says how to write one.
    """
    found = _SPAN.fullmatch(text)
    if found is None or not text:
        raise ValueError("write a time such as 90s, 10m, 1h30m or 2d")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    span = days * _DAY + hours * _HOUR + minutes * _MINUTE + seconds
    if not 0 < span <= MAX_SECONDS:
        raise ValueError("must be over 0 and at most 365d")
    return span
