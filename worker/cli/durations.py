"""Reads and writes time spans as people do."""

from __future__ import annotations

import re

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SPAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
#: The longest time span that is read.
MAX_SECONDS = 365 * _DAY


def duration(seconds: float) -> str:
    """Return a time span as text for people."""
    seconds = max(0.0, round(seconds, 1))
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


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
