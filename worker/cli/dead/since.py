"""Reads the value of ``--since``: a time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import typer

from worker.observe.printable import printable

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def since_ms(text: str) -> int:
    """Return the time in milliseconds; a time without an offset is local time.

    Raises:
        typer.BadParameter: it is neither a time nor a time span.
    """
    now = datetime.now(UTC)
    span = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if span is not None:
        return max(0, round((now.timestamp() - int(span[1]) * _SECONDS[span[2]]) * 1000))
    try:
        return max(0, round(datetime.fromisoformat(text).astimezone().timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        wanted = "must be a time span such as 10m, 2h or 1d, or a time such as 2026-11-22T15:04"
        raise typer.BadParameter(f"--since {printable(text)}: {wanted}") from None
