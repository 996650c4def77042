"""Waits until the workers of a fleet obey what an operator asked for."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tasks.plural import plural
from worker.observe.printable import printable
from worker.runtime.members import read_members

if TYPE_CHECKING:
    from worker.cli.controls.steering import Steering

#: A worker obeys within about a second; the command waits so long for all of them.
_PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.1
_NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Obedience:
    """How many workers are registered, and the names of those that were not seen to obey."""

    workers: int
    missing: tuple[str, ...]

    def sentence(self, what: str) -> str:
        """Say it to people; ``what`` is in force, such as ``the pause``."""
        if not self.workers:
            return f"No worker is registered: {what} holds for workers that start."
        obeying = self.workers - len(self.missing)
        told = f"{obeying:,} of {plural(self.workers, 'worker')} {'obeys' if self.workers == 1 else 'obey'}."
        if not self.missing:
            return told
        names = ", ".join(map(printable, self.missing[:_NAMES_SHOWN]))
        more = len(self.missing) - _NAMES_SHOWN
        names += f" and {more:,} more" if more > 0 else ""
        return (
            f"{told} Not seen to obey: {names}. {what[0].upper()}{what[1:]} stands all the same. A worker that was "
            "killed leaves the list in half a minute; one that is cut off from Redis can take no job, but may finish "
            "those that it has."
        )

    def to_json(self) -> dict[str, Any]:
        """Say it to programs."""
        return {"registered": self.workers, "obey": self.workers - len(self.missing), "missing": list(self.missing)}


def wait_until_obeyed(fleet: Steering, version: int) -> Obedience:
    """Return when every registered worker obeys a version of the controls, or after 15 seconds."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    console = Console(stderr=True)
    with console.status("waiting for the workers") if sys.stderr.isatty() else nullcontext():
        while True:
            found = _look(fleet, version)
            if not found.missing or time.monotonic() >= deadline:
                return found
            time.sleep(_LOOK_SECONDS)


def _look(fleet: Steering, version: int) -> Obedience:
    workers: Any = fleet.client.hgetall(fleet.keys.workers)
    members = read_members(workers, fleet.now_ms())
    missing = sorted(member.title for member in members if member.activity.controls < version)
    return Obedience(len(members), tuple(missing))
