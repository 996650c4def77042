"""``lock-worker show --json``: one job, or a list of jobs, for programs. The field names are stable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.cli.controls.answers import note_json
from worker.cli.show.story import history_of
from worker.cli.show.taken import time_at

if TYPE_CHECKING:
    from worker.cli.show.job_view import JobView, Place


def job_json(view: JobView) -> dict[str, Any]:
    """Return a job as JSON values."""
    place, end = view.place, view.end
    event = None if end is None else end.event
    data: dict[str, Any] = {} if event is None else event["data"]
    return {
        "job_id": view.job_id,
        "state": view.state,
        "conversation_id": view.conversation_id,
        "queue": place.queue if place else end.queue if end else None,
        "attempts": place.attempts if place else data.get("attempts"),
        "received_at": _time(place.received_ms) if place else data.get("received_at"),
        "worker": place.worker if place else None,
        "due_at": _time(place.due_ms) if place else None,
        "history": [entry.as_fields() for entry in history_of(view)],
        "event": event,
        "dead_letter": {"entry": end.letter, "queue": end.queue} if end and end.letter else None,
        "outcome": data.get("outcome") or (view.remembered.outcome if view.remembered else None),
        "messages": [_place(one) for one in view.places],
        "events": len(view.ends),
        "cancel": None if view.cancel is None else note_json(view.cancel),
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "state": place.state,
        "queue": place.queue,
        "where": place.where,
        "worker": place.worker,
        "due_at": _time(place.due_ms),
        "lease_until": _time(place.lease_ms),
        "held_since": _time(place.held_ms),
        "hold": None if place.hold is None else {"selector": place.hold.selector.fields, **note_json(place.hold.note)},
        "received_at": _time(place.received_ms),
        "attempts": place.attempts,
        "workers_died": place.crashes,
        "dry_run": place.is_dry_run,
        "error": None if place.problem is None else place.problem.type.value,
    }


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return time_at(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
