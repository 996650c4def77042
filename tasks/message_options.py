"""Checks the options of a job: its id, its ``eta`` and its ``expires``.

The rules are the same for a message from the queue (``worker.message.celery_protocol``) and for a job that runs
in-process (``tasks.in_process``).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tasks import rfc3339
from tasks.celery_json import as_text
from tasks.redaction import shorten

MAX_JOB_ID_CHARACTERS = 128
MAX_WAIT = timedelta(days=365)
#: Options of Celery that a producer may count on, and that have no effect here.
IGNORED = ("link", "link_error", "chain", "chord", "timelimit", "reply_to", "stamps")


def usable_id(value: Any) -> str | None:
    """Return the job id; None if there is none, or none that can be used."""
    if not isinstance(value, str):
        value = as_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and 0 < len(value) <= MAX_JOB_ID_CHARACTERS and value.isprintable():
        return value
    return None


def unusable_id(value: Any) -> str:
    """Return the sentence about an id that :func:`usable_id` does not take."""
    return f"id: must be 1 to {MAX_JOB_ID_CHARACTERS} printable characters, and is {shorten(value)}."


def replay_of(value: Any) -> str | None:
    """Return the id of the job that this one repeats, from the header of that name; None: it repeats none."""
    return usable_id(value) if isinstance(value, str) else None


def parse_time(name: str, value: Any) -> tuple[datetime | None, bool]:
    """Return the time (in UTC) that an option names, and True if it has no offset and was read as UTC.

    Raises:
        ValueError: it names no time; the message is a sentence that names the option.
    """
    if value is None:
        return None, False
    try:
        if isinstance(value, str):
            return rfc3339.parse_isoformat(value)
    except ValueError:
        pass
    raise ValueError(f"{name}: must be an RFC 3339 time such as 2026-11-22T15:04:05Z, and is {shorten(value)}.")


def not_before(value: Any, now: datetime) -> tuple[datetime | None, bool]:
    """Return the time that ``eta`` names, as :func:`parse_time` does.

    Raises:
        ValueError: it names no time, or one that is too far away; the message is a sentence.
    """
    eta, is_naive = parse_time("eta", value)
    if eta is not None and eta - now > MAX_WAIT:
        raise ValueError(
            f"eta: is more than {MAX_WAIT.days} days away ({eta.date()}); send the job nearer to its time."
        )
    return eta, is_naive
