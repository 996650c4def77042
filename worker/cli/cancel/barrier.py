"""The cancel that is in force while a command looks through the jobs, so that none that matches is called meanwhile."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from worker.cli.controls.steering import Done
from worker.message.controls import Control

if TYPE_CHECKING:
    from worker.cli.controls.steering import Steering
    from worker.message.controls import Note
    from worker.message.selector import Selector

#: It is in force for so long at a time: if the command dies, it ends by itself.
_SECONDS = 60
#: It is renewed after so long, in seconds.
_RENEW_SECONDS = 20.0
#: What is in force for longer than this, in milliseconds, is the cancel of an operator who gave a time. No command ends
#: it by itself, so it is left as it is.
_LONG_MS = _SECONDS * 1000


class Barrier:
    """A cancel of all jobs that match, for ``seconds`` (None: only while it is needed).

    A cancel of another operator for the same jobs is left as it is, unless it ends too soon, or ``seconds`` are given.
    """

    def __init__(self, fleet: Steering, selector: Selector, note: Note, seconds: int | None) -> None:
        self._fleet = fleet
        self._note = note
        self._until_ms = 0 if seconds is None else note.at_ms + seconds * 1000
        self._control = Control("cancel", selector, note)
        self._ours = ""
        self._renewed_at = 0.0

    def raise_(self, event: str) -> Done:
        """Set it, and note the event in the same step."""
        while True:
            found = self._fleet.read_text(self._control)
            if self._until_ms == 0 and found and self._lasts():
                version = self._fleet.cancel_ids([], self._note, ttl_ms=1, event=event)
                return Done(version, is_changed=True)
            done = self._set(found, event)
            if done.is_changed:
                return done

    def keep(self) -> None:
        """Renew it, if it is time for that."""
        if time.monotonic() - self._renewed_at < _RENEW_SECONDS:
            return
        self._renewed_at = time.monotonic()
        found = self._fleet.read_text(self._control)
        if not (found and self._lasts()):
            self._set(found, "")

    def lower(self) -> None:
        """End it if it is ours, and no longer asked for."""
        if self._ours and self._until_ms <= self._fleet.now_ms():
            self._fleet.remove(self._control, "", expected=self._ours)

    def _set(self, found: bytes, event: str) -> Done:
        until_ms = max(self._until_ms, self._fleet.now_ms() + _SECONDS * 1000)
        control = replace(self._control, note=replace(self._note, until_ms=until_ms))
        done = self._fleet.set(control, event, expected=found)
        if done.is_changed:
            self._ours, self._renewed_at = control.to_json(), time.monotonic()
        return done

    def _lasts(self) -> bool:
        """Return whether what is there now is in force for some time."""
        found = self._fleet.read().find(self._control)
        return found is not None and found.note.is_in_force(self._fleet.now_ms() + _LONG_MS)
