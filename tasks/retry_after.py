"""Reads the ``Retry-After`` header and HTTP dates. ``tasks.retry`` decides on the wait."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Accepts fractions and any number of digits, but no sign and no exponent.
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", re.ASCII)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return a ``Retry-After`` header (RFC 9110, section 10.2.3) as seconds from ``now``; None: absent or invalid.

    Fractions of seconds are accepted, as some servers send them. ``now`` should be the answer's own ``Date``: the
    host's clock may be wrong, but its dates follow it.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)  # hundreds of digits give infinity, which the longest wait cuts like any other
    date = parse_date(text)
    return None if date is None else max(0.0, (date - now).total_seconds())


def parse_date(value: str | None) -> datetime | None:
    """Return an HTTP date (RFC 9110, section 5.6.7); None: absent or invalid."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date
