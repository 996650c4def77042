"""``lock-worker status --json``: the whole state as one JSON object, for programs. Its field names are stable."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from worker.cli.exit import redis_address
from worker.cli.status.rates import per_second
from worker.cli.status.verdict import verdict
from worker.cli.worker_view import worker_json
from worker.flow_control.fleet_counts import RECENT_SECONDS

if TYPE_CHECKING:
    from worker.cli.status.condition import Condition
    from worker.cli.status.other_queues import QueueCounts
    from worker.cli.status.report import Report
    from worker.cli.status.stream_stats import StreamStats
    from worker.message.controls import Control, Note
    from worker.runtime.fleet_state import FleetState

#: The times over which rates are told, in seconds.
RATES_SECONDS = (60, 300)


def as_json(report: Report) -> str:
    """Return the report as JSON."""
    state, settings = report.state, report.settings
    limit = state.limit
    return json.dumps(
        {
            "verdict": verdict(report.problems),
            "problems": [_condition(each) for each in report.problems],
            "notes": [_condition(each) for each in report.notes],
            "queue": settings.LOCK_QUEUE,
            "redis": redis_address(settings),
            "time": datetime.fromtimestamp(state.server_seconds, UTC).isoformat(),
            **_jobs(state),
            "paused_seconds": state.queue.paused_ms / 1000 if state.queue.paused_ms else None,
            "paused_why": state.queue.paused_why or None,
            "paused_by_operator": _operators_pause(state),
            "holds": [_hold(hold, state) for hold in state.holds],
            "limit": None
            if limit is None
            else {"calls_per_second": limit.rate, "by": limit.by, "status": limit.status},
            "calls": {"seconds": RECENT_SECONDS, "ended": state.calls[0], "failed": state.calls[1]},
            "dead_letters": state.dead.length,
            "results": state.results.length,
            "streams": [_stream(stream) for stream in report.streams],
            "last_maintenance_seconds": report.last_maintenance_seconds,
            "totals": state.queue.totals,
            "rates": {f"{seconds}s": _rates(state, seconds) for seconds in RATES_SECONDS},
            "queues": [_queue(one) for one in report.queues],
            "workers": [worker_json(member, state.server_seconds) for member in state.members],
            "settings_differ": {
                setting: [{"value": value, "workers": names} for value, names in values.items()]
                for setting, values in state.settings_differ.items()
            },
        }
    )


def _condition(one: Condition) -> dict[str, str]:
    return {"code": one.code, "text": one.text, "advice": one.advice}


def _jobs(state: FleetState) -> dict[str, Any]:
    queue = state.queue
    return {
        "ready": {
            "total": queue.ready,
            "priorities": queue.priorities,
            "arrived": queue.arrived,
            "requeued": queue.requeued,
            "retries": queue.retries,
            "suspects": queue.suspects,
            "oldest_at_most_seconds": state.oldest_ready_seconds,
        },
        "delayed": {
            "total": queue.delayed + queue.due,
            "due": queue.due,
            "next_due_seconds": None if queue.first_due_ms is None else (queue.first_due_ms - queue.server_ms) / 1000,
        },
        "in_flight": queue.in_flight,
        "held": queue.held,
        "slots": state.slots,
        "workable": state.workable,
    }


def _operators_pause(state: FleetState) -> dict[str, Any] | None:
    pause = state.controls.pause
    return None if state.queue.operators_pause_ms == 0 or pause is None else _note(pause)


def _hold(hold: Control, state: FleetState) -> dict[str, Any]:
    return {
        "selector": hold.selector.fields,
        "held": state.queue.held_by.get(hold.selector.digest, 0),
        **_note(hold.note),
    }


def _note(note: Note) -> dict[str, Any]:
    return {"by": note.by, "reason": note.reason, "at": _time(note.at_ms), "until": _time(note.until_ms)}


def _queue(one: QueueCounts) -> dict[str, Any]:
    return {
        "queue": one.queue,
        "ready": one.ready,
        "delayed": one.delayed,
        "in_flight": one.in_flight,
        "workers": one.workers,
    }


def _rates(state: FleetState, seconds: float) -> dict[str, float | None]:
    names = ("taken", "finished", *(name for name in state.queue.totals if name.startswith("outcome:")))
    return {name: per_second(state.queue, name, seconds) for name in names}


def _stream(stream: StreamStats) -> dict[str, Any]:
    return {
        "name": stream.name,
        "events": stream.events,
        "bytes": stream.held_bytes,
        "max_events": stream.max_events,
        "max_bytes": stream.max_bytes,
        "oldest_seconds": stream.oldest_seconds,
        "groups": [
            {"name": group.name, "lag": group.lag, "pending": group.pending, "near_loss": group.near_loss}
            for group in stream.groups
        ],
    }


def _time(at_ms: int) -> str | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat() if at_ms else None
