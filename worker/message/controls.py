"""What operators asked of the fleet, as it stands in Redis: the pause, holds and cancels, each with who and why.

The hash ``controls`` has one field for each hold (``hold <digest>``) and each cancel (``cancel <digest>``), whose text
is JSON. Every pod reads it anew when its version changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from worker.message.selector import Selector, read_selector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.job import Job

Kind = Literal["hold", "cancel"]
#: A text is read up to this many characters: somebody else may have written it.
_MAX_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Note:
    """Who asked for something, and why.

    Attributes:
        by: who.
        reason: why, for people.
        at_ms: when, in milliseconds since 1970.
        until_ms: until when it is in force; 0: until it is ended.
        is_revoke: it came through Celery's ``revoke``.
    """

    by: str
    reason: str
    at_ms: int = 0
    until_ms: int = 0
    is_revoke: bool = False

    def is_in_force(self, now_ms: float) -> bool:
        """Return whether its time is not over."""
        return self.until_ms == 0 or self.until_ms > now_ms

    def to_json(self) -> str:
        """Return it as it stands in Redis, for a pause or a cancelled job id."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Control:
    """A hold or a cancel of the jobs that a selector matches."""

    kind: Kind
    selector: Selector
    note: Note

    @property
    def field(self) -> str:
        """The field of the hash that it stands in."""
        return f"{self.kind} {self.selector.digest}"

    def to_json(self) -> str:
        """Return the field's text."""
        return json.dumps({"selector": self.selector.fields, **asdict(self.note)})


@dataclass(frozen=True, slots=True)
class Controls:
    """All of them.

    Attributes:
        version: a new one with each change; 0: there were none yet.
        controls: the holds and the cancels, cancels first.
        pause: the note of an operator's pause; None: there is none.
    """

    version: int = 0
    controls: tuple[Control, ...] = ()
    pause: Note | None = field(default=None)

    def find(self, like: Control) -> Control | None:
        """Return what stands in the same field; None: nothing does."""
        return next((control for control in self.controls if control.field == like.field), None)

    def of(self, job: Job, now_ms: float) -> Control | None:
        """Return what is in force for a job: the first cancel, or else the first hold; None: nothing is."""
        for control in self.controls:
            if control.note.is_in_force(now_ms) and control.selector.matches(job):
                return control
        return None


NO_CONTROLS = Controls()


def read_controls(found: Mapping[bytes, bytes]) -> Controls:
    """Read the hash. What no worker wrote there is left out."""
    version = found.get(b"version", b"")
    controls = sorted(_controls(found), key=lambda control: (control.kind, control.note.at_ms))
    return Controls(
        version=int(version) if version.isdigit() and len(version) < 16 else 0,  # noqa: PLR2004 - as the scripts do
        controls=tuple(controls),
        pause=read_note(found[b"pause"]) if b"pause" in found else None,
    )


def read_note(text: bytes) -> Note | None:
    """Read who asked for something, and why; None if something else is there."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _note(found) if isinstance(found, dict) else None


def _controls(found: Mapping[bytes, bytes]) -> Iterator[Control]:
    kinds: Mapping[bytes, Kind] = {b"hold": "hold", b"cancel": "cancel"}
    for name, text in found.items():
        kind = kinds.get(name.partition(b" ")[0])
        if kind is None:
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(values, dict):
            continue
        selector, note = read_selector(values.get("selector")), _note(values)
        if selector is not None and note is not None:
            control = Control(kind, selector, note)
            if control.field.encode() == name:
                yield control


def _note(found: Mapping[str, object]) -> Note | None:
    by, reason, at_ms, until_ms = (found.get(name) for name in ("by", "reason", "at_ms", "until_ms"))
    if not (isinstance(by, str) and isinstance(reason, str)):
        return None
    return Note(
        by[:_MAX_CHARACTERS],
        reason[:_MAX_CHARACTERS],
        _count(at_ms),
        _count(until_ms),
        is_revoke=found.get("is_revoke") is True,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 10**15 else 0
