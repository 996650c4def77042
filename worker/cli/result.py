"""A result event as the command line shows it: one line or one row, with nothing in it that a terminal would obey."""

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
#: JSON has line breaks and tabs between its values only.
_ONE_LINE = str.maketrans("\r\n\t", "   ")


@dataclass(frozen=True, slots=True)
class Result:
    """What an event says, as far as it is shown. Strings are as they came: make them printable before showing them."""

    job_id: str
    outcome: str
    conversation_id: str
    attempts: int
    finished_at: str
    error_type: str
    problem: str
    text: str

    @property
    def style(self) -> str:
        """The colour of the outcome."""
        return _STYLES.get(self.outcome, _FAILED_STYLE)

    @property
    def clock_time(self) -> str:
        """When the job ended, as a clock on the wall here shows it."""
        return self._local_time("%H:%M:%S")

    def as_line(self) -> str:
        """One line for people whose terminal is a log."""
        return printable(f"{self.clock_time} {self.outcome:<10} {self._told()}".rstrip())

    def as_dated_line(self) -> str:
        """The same with the date and the error's type, for what may have been there for long."""
        when = self._local_time("%Y-%m-%d %H:%M:%S")
        return printable(f"{when} {self.outcome:<10} {self.error_type:<12} {self._told()}".rstrip())

    def _told(self) -> str:
        return f"{self.conversation_id or '-'} ({plural(self.attempts, 'call')}) {self.job_id} {self.problem}"

    def _local_time(self, pattern: str) -> str:
        try:
            return datetime.fromisoformat(self.finished_at).astimezone().strftime(pattern)
        except (ValueError, OverflowError):
            return "?"

    def as_json(self) -> str:
        """The event on one line."""
        return printable(self.text.translate(_ONE_LINE))


def read_result(event: bytes) -> Result | None:
    """An event that this worker wrote, or None: others may write to the stream too."""
    try:
        text = event.decode()
        found = json.loads(text)
        data = found["data"]
        error: Mapping[str, Any] = data["error"] or {}
        return Result(
            job_id=str(data.get("job_id", found["id"])),  # the version before told it by the event's id alone
            outcome=str(data["outcome"]),
            conversation_id=str(found.get("subject", "")),
            attempts=int(data["attempts"]),
            finished_at=str(found["time"]),
            error_type=str(error.get("type", "")),
            problem=str(error.get("detail", "")),
            text=text,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
