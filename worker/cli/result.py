"""Formats a result event for the command line: one line or one row, without terminal control characters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

from tasks.outcome import OutcomeName
from tasks.plural import plural
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTCOMES: tuple[str, ...] = get_args(OutcomeName)

_STYLES = {"locked": "green", "would_lock": "cyan", "expired": "yellow", "revoked": "yellow"}
_FAILED_STYLE = "red"
#: JSON has line breaks and tabs only between its values.
_ONE_LINE = str.maketrans("\r\n\t", "   ")


@dataclass(frozen=True, slots=True)
class Result:
    """The parts of an event that are shown. Strings are unchanged: make them printable before showing them."""

    job_id: str
    outcome: str
    conversation_id: str
    attempts: int
    finished_at: str
    error_type: str
    problem: str
    text: str
    event_type: str = ""
    rule_id: str = ""
    job_conversation_id: str = ""

    def is_of_conversation(self, conversation_id: str) -> bool:
        """Return True if the event is of a job for this conversation; its subject may be a changed form of the id."""
        return conversation_id in {self.conversation_id, self.job_conversation_id}

    @property
    def style(self) -> str:
        """The colour of the outcome."""
        return _STYLES.get(self.outcome, _FAILED_STYLE)

    @property
    def clock_time(self) -> str:
        """The time at which the job ended, in the local time zone."""
        return self._local_time("%H:%M:%S")

    def as_line(self) -> str:
        """Return one line for people, for output that is no terminal."""
        return printable(f"{self.clock_time} {self.outcome:<10} {self._details()}".rstrip())

    def as_dated_line(self) -> str:
        """Return the line with date and error type, for events that may be old."""
        when = self._local_time("%Y-%m-%d %H:%M:%S")
        return printable(f"{when} {self.outcome:<10} {self.error_type:<12} {self._details()}".rstrip())

    def _details(self) -> str:
        return f"{self.conversation_id or '-'} ({plural(self.attempts, 'call')}) {self.job_id} {self.problem}"

    def _local_time(self, pattern: str) -> str:
        try:
            return datetime.fromisoformat(self.finished_at).astimezone().strftime(pattern)
        except (ValueError, OverflowError):
            return "?"

    def as_json(self) -> str:
        """Return the event's JSON on one line."""
        return printable(self.text.translate(_ONE_LINE))


def read_result(event: bytes) -> Result | None:
    """Return the result in an event; None if it has another form, as other programs may write to the stream."""
    try:
        text = event.decode()
        event_json = json.loads(text)
        data = event_json["data"]
        error: Mapping[str, Any] = data["error"] or {}
        job = data.get("job")
        fields: Mapping[str, Any] = job if isinstance(job, dict) else {}
        return Result(
            job_id=str(data["job_id"]),
            outcome=str(data["outcome"]),
            conversation_id=str(event_json.get("subject", "")),
            attempts=int(data["attempts"]),
            finished_at=str(event_json["time"]),
            error_type=str(error.get("type", "")),
            problem=str(error.get("detail", "")),
            text=text,
            event_type=str(event_json.get("type", "")),
            rule_id=_text(fields.get("rule_id")),
            job_conversation_id=_text(fields.get("conversation_id")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _text(value: Any) -> str:
    """Return an id as text; integers are ids too, and anything else is none."""
    return str(value) if isinstance(value, (str, int)) else ""
