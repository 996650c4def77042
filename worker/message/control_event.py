"""The events of the control stream: what operators did to a fleet, or a rule's limit did; CloudEvents 1.0 in JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

if TYPE_CHECKING:
    from worker.message.controls import Note

#: What the types of these events begin with.
TYPE_PREFIX = "uk.co.managem.lock-worker.control."

What = Literal[
    "paused", "resumed", "held", "released", "cancelled", "revoked", "rule_held", "discarded", "acknowledged"
]


def control_event(what: What, note: Note, *, source: str, queue: str, **facts: object) -> str:
    """Return an event.

    Args:
        what: what was done.
        note: who did it, why, when, and until when it is in force.
        source: EVENT_SOURCE.
        queue: LOCK_QUEUE, which names the fleet.
        facts: what it was done to, for ``data``.
    """
    at = iso_time(note.at_ms)
    data = {"queue": queue, "by": note.by, "reason": note.reason, "at": at, "until": iso_time(note.until_ms), **facts}
    return json.dumps(
        {
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": source,
            "type": f"{TYPE_PREFIX}{what}",
            "subject": queue,
            "time": at,
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def iso_time(ms: float) -> str | None:
    """Return a time in milliseconds since 1970 as RFC 3339; None for 0, which is no time."""
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
