"""What happened to a job so far: its calls and its delays, the last ten of them.

It is stored with the job's progress, so that it survives workers, and told in the event as ``data.history``. It holds
no text of the API's or of a producer's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

#: A job keeps at most this many entries, the newest.
MAX_ENTRIES = 10
#: The reason of a delay until the time that the producer asked for.
ETA = "eta"
#: The reason of a delay until a hold is released.
HOLD = "hold"
#: The reason of a call that its worker gave up: it had to stop, or the job was terminated.
INTERRUPTED = "interrupted"

_MAX_LABEL = 32


class HistoryEntry(NamedTuple):
    """A call of a job, or a delay without one.

    Attributes:
        at_ms: when the call or the delay began, in milliseconds of the server's clock.
        what: which of the two it is.
        status: the HTTP status of the answer; None: there was none.
        error: what went wrong, as the event's ``error.type`` names it; None: nothing, or it is not known.
        reason: why the job was delayed, or :data:`INTERRUPTED`; else None.
        wait_seconds: how long the job waits afterwards; None: it does not, or that is not known.
    """

    at_ms: int
    what: Literal["call", "delay"]
    status: int | None = None
    error: str | None = None
    reason: str | None = None
    wait_seconds: float | None = None

    @property
    def time(self) -> datetime:
        """When it began."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.at_ms)

    def as_fields(self) -> dict[str, Any]:
        """Return the entry as the event tells it."""
        return {
            "time": self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "what": self.what,
            "status": self.status,
            "error": self.error,
            "reason": self.reason,
            "wait_seconds": self.wait_seconds,
        }


History: TypeAlias = tuple[HistoryEntry, ...]


def with_call(
    history: History,
    began: datetime,
    *,
    status: int | None = None,
    error: str | None = None,
    reason: str | None = None,
) -> History:
    """Return the history with a call that began at this time."""
    return _with(history, HistoryEntry(_milliseconds(began), "call", status, error, reason))


def with_delay(history: History, began: datetime, *, reason: str, seconds: float | None) -> History:
    """Return the history with a delay that is due to no call; ``seconds``: how long it is to last, if that is known."""
    wait = None if seconds is None else round(seconds, 3)
    return _with(history, HistoryEntry(_milliseconds(began), "delay", reason=reason, wait_seconds=wait))


def with_wait(history: History, seconds: float) -> History:
    """Return the history with so many seconds to wait after its last call."""
    if not history:
        return history
    return (*history[:-1], history[-1]._replace(wait_seconds=round(seconds, 3)))


def to_stored(history: History) -> list[list[Any]]:
    """Return the history as JSON values, short because many jobs may wait in Redis at once."""
    return [
        [entry.at_ms, int(entry.what == "delay"), entry.status, entry.error, entry.reason, entry.wait_seconds]
        for entry in history
    ]


def from_stored(stored: Any) -> History:
    """Read what :func:`to_stored` returned. Never raises: what is anything else is left out."""
    if not isinstance(stored, list):
        return ()
    return tuple(entry for values in stored[-MAX_ENTRIES:] if (entry := _entry(values)) is not None)


def from_fields(fields: Any) -> History:
    """Read a history as the event tells it. Never raises: what is anything else is left out."""
    if not isinstance(fields, list):
        return ()
    return tuple(entry for one in fields[-MAX_ENTRIES:] if (entry := _told_entry(one)) is not None)


def _told_entry(told: Any) -> HistoryEntry | None:
    try:
        began = datetime.fromisoformat(told["time"])
        values = (told["status"], told["error"], told.get("reason"), told["wait_seconds"])
        return _entry([_milliseconds(began), told["what"] == "delay", *values])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _with(history: History, entry: HistoryEntry) -> History:
    return (*history[1 - MAX_ENTRIES :], entry)


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _entry(values: Any) -> HistoryEntry | None:
    try:
        at_ms, is_delay, status, error, reason, wait = values
        entry = HistoryEntry(
            at_ms=int(at_ms),
            what="delay" if is_delay else "call",
            status=None if status is None else int(status),
            error=None if error is None else str(error)[:_MAX_LABEL],
            reason=None if reason is None else str(reason)[:_MAX_LABEL],
            wait_seconds=None if wait is None else float(wait),
        )
        entry.time  # noqa: B018 - a time that no calendar has is refused here
    except (ValueError, TypeError, OverflowError):
        return None
    return entry
