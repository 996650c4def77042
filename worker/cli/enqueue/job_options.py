"""Turns the options of ``enqueue`` into a job's fields and Celery's message options; a wrong one ends the command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks import rfc3339
from tasks.job import MAX_LEVELS
from tasks.message_options import MAX_JOB_ID_CHARACTERS, MAX_WAIT
from tasks.strict_json import NotStrictError, loads
from worker.cli.exit import USAGE_ERROR, fail

if TYPE_CHECKING:
    from collections.abc import Mapping


def fields(*, metadata: str | None, **others: Any) -> Mapping[str, Any]:
    """Return the given fields. They are checked later, together with the conversation id."""
    given = {name: value for name, value in others.items() if value is not None}
    if metadata is not None:
        try:
            given["metadata"] = loads(metadata.encode("utf-8", "surrogateescape"), max_levels=MAX_LEVELS)
        except NotStrictError as reason:
            fail(f"--metadata {reason}", USAGE_ERROR)
    return given


def message_options(
    *, priority: int | None, eta: str | None, countdown: float | None, expires: str | None, job_id: str | None
) -> Mapping[str, Any]:
    """Return the given options as arguments of ``send_task``. Time spans count from now."""
    if eta is not None and countdown is not None:
        fail("give --eta or --countdown, not both", USAGE_ERROR)
    if job_id is not None and not (0 < len(job_id) <= MAX_JOB_ID_CHARACTERS and job_id.isprintable()):
        fail(f"--job-id must be 1 to {MAX_JOB_ID_CHARACTERS} printable characters", USAGE_ERROR)
    now = datetime.now(UTC)
    options = {
        "priority": priority,
        "task_id": job_id,
        "eta": _eta(now, eta, countdown),
        "expires": _expiry(now, expires),
    }
    return {name: value for name, value in options.items() if value is not None}


def _eta(now: datetime, eta: str | None, countdown: float | None) -> datetime | None:
    if eta is not None:
        time = _time("--eta", eta)
    elif countdown is not None:
        time = _later("--countdown", now, countdown)
    else:
        return None
    if time - now > MAX_WAIT:
        fail(f"--eta and --countdown: at most {MAX_WAIT.days} days from now", USAGE_ERROR)
    return time


def _expiry(now: datetime, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        time = _time("--expires", text, "or a number of seconds")
    else:
        time = _later("--expires", now, seconds)
    if time <= now:
        fail("--expires is over already: the jobs would never be called", USAGE_ERROR)
    return time


def _later(option: str, now: datetime, seconds: float) -> datetime:
    try:
        return now + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        fail(f"{option} must be a sensible number of seconds", USAGE_ERROR)


def _time(option: str, text: str, alternative: str = "") -> datetime:
    try:
        # People may leave out the time of day.
        return rfc3339.parse_isoformat(text if "T" in text.upper() else f"{text}T00:00:00")[0]
    except ValueError:
        fail(f"{option} must be a time such as 2026-11-22T15:04:05Z {alternative}".rstrip(), USAGE_ERROR)
