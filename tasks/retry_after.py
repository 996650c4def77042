"""Reads the ``Retry-After`` header and HTTP dates. What comes of the wait is decided in ``tasks.retry``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: A fraction of seconds, and hundreds of digits, are taken; a sign or an exponent is not.
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", re.ASCII)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """A ``Retry-After`` header (RFC 9110, section 10.2.3) as seconds from ``now``; None: absent, or no sense.

    A fraction of seconds is taken too, as some servers send it. ``now`` is best the answer's own ``Date``: the host's
    clock may be wrong, but it is the one that its dates are by.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)  # of hundreds of digits: infinity, which the longest wait cuts like any other
    moment = parse_date(text)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def parse_date(value: str | None) -> datetime | None:
    """An HTTP date (RFC 9110, section 5.6.7); None: absent, or no sense."""
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
