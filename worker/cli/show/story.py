"""Tells what happened to a job, in the order of time, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from tasks import history
from tasks.history import INTERRUPTED, MAX_ENTRIES
from worker.cli.durations import duration
from worker.cli.show.taken import time_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.history import History, HistoryEntry
    from worker.cli.show.job_view import JobView

#: A line of the story: its time, None where that is not known, and a text, which may have any characters.
Line = tuple[datetime | None, str]


def history_of(view: JobView) -> History:
    """Return the calls and delays of a job: from its record, or from its event."""
    if view.place is not None:
        return view.place.history
    if view.end is None:
        return ()
    return history.from_fields(view.end.event["data"].get("history"))


def story(view: JobView) -> Iterator[Line]:
    """Yield the lines of a job's story."""
    place, end = view.place, view.end
    received = _received(view)
    if received is not None:
        yield received, "taken for the first time"
    entries = history_of(view)
    if len(entries) == MAX_ENTRIES:
        yield None, f"(the last {MAX_ENTRIES} calls and delays; earlier ones are not kept)"
    for entry in entries:
        yield entry.time, _entry(entry)
    if place is None and end is not None:
        yield _time(end.result.finished_at), f"ended: {_ending(view)}"


def _received(view: JobView) -> datetime | None:
    if view.place is not None:
        return None if view.place.received_ms is None else time_at(view.place.received_ms)
    return None if view.end is None else _time(str(view.end.event["data"].get("received_at")))


def _ending(view: JobView) -> str:
    end = view.end
    if end is None:
        return ""
    result = end.result
    why = f": {result.problem}" if result.problem else ""
    error = f" ({result.error_type})" if result.error_type else ""
    return f"{result.outcome}{error}{why}"


def _entry(entry: HistoryEntry) -> str:
    wait = "" if entry.wait_seconds is None else f"; then a wait of {_span(entry.wait_seconds)}"
    if entry.what == "delay":
        span = "" if entry.wait_seconds is None else f" for {_span(entry.wait_seconds)}"
        return f"put aside{span} ({entry.reason})"
    if entry.reason == INTERRUPTED:
        return f"called; its worker gave the call up, so nobody knows what came of it{wait}"
    if entry.status is None:
        return f"called: no answer ({entry.error or 'no reason is known'}){wait}"
    return f"called: {_status(entry.status)}{f' ({entry.error})' if entry.error else ''}{wait}"


def _span(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
