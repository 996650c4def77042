"""Looks through all jobs of a fleet, remembers the ids of those that are cancelled, and ends those that wait."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.message import Accepted
from tasks.plural import plural
from tasks.task_name import TASK_NAME
from worker.broker.control_moves import wake_command
from worker.broker.keys import digest
from worker.cli.cancel.places import PLACES, Entry, Place, count_jobs, pages
from worker.cli.controls.queues import fleet_queues
from worker.message.decode import decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from worker.broker.keys import Keys
    from worker.broker.script_calls import Command
    from worker.cli.controls.steering import Steering
    from worker.message.controls import Note

_decode = decoder(TASK_NAME)


@dataclass(slots=True)
class Found:
    """The jobs that were found so far.

    Attributes:
        places: how many, by their place.
        without_id: those among them that no producer gave an id.
    """

    places: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    without_id: int = 0

    @property
    def total(self) -> int:
        """How many."""
        return sum(self.places.values())

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {place}" for place, count in self.places.items() if count)
        return plural(self.total, "job") + (f" ({counts})" if counts else "")


@dataclass(slots=True)
class Scan:
    """One look through the jobs of a fleet.

    Attributes:
        fleet: the fleet.
        matches: whether a job is cancelled.
        note: who cancels, and why.
        ttl_ms: for how long ids are remembered, in milliseconds; 0: they are remembered already.
        wakes_without_id: make jobs that have no id ready too: they end by a cancel that stays in force.
        places: where to look.
        found: the jobs that were found so far.
    """

    fleet: Steering
    matches: Callable[[Accepted], bool]
    note: Note
    ttl_ms: int = 0
    wakes_without_id: bool = False
    places: Sequence[Place] = PLACES
    found: Found = field(default_factory=Found)
    _counted: set[str] = field(default_factory=set)

    def run(self) -> Iterator[None]:
        """Look at all jobs; it yields after each page, so that the caller can do what is due meanwhile."""
        now = datetime.fromtimestamp(self.fleet.now_ms() / 1000, UTC)
        queues = fleet_queues(self.fleet.client, self.fleet.keys)
        total = sum(count_jobs(self.fleet.client, keys, self.places) for keys in queues)
        progress = _progress(total)
        with nullcontext() if progress is None else progress:
            bar = None if progress is None else progress.add_task("", total=total)
            for keys in queues:
                self._counted.clear()  # names of records are a queue's own
                for place, entries in pages(self.fleet.client, keys, self.places):
                    self._look(keys, place, entries, now)
                    if progress is not None and bar is not None:
                        progress.advance(bar, len(entries))
                    yield

    def _look(self, keys: Keys, place: Place, entries: Sequence[Entry], now: datetime) -> None:
        ids: list[str] = []
        wake: list[tuple[str, str, str]] = []
        for entry in entries:
            job = _decode(entry.raw, size=entry.size, now=now)
            if not isinstance(job, Accepted) or not self.matches(job):
                continue
            has_id = job.fingerprint is not None
            self._count(place, entry, has_id=has_id)
            if has_id:
                ids.append(digest(job.id))
            if entry.wake is not None and (has_id or self.wakes_without_id):
                wake.append(entry.wake)
        if ids and self.ttl_ms:
            self.fleet.cancel_ids(ids, self.note, ttl_ms=self.ttl_ms)
        if wake:
            self._wake(keys, wake)

    def _count(self, place: Place, entry: Entry, *, has_id: bool) -> None:
        """Count a job where it is seen first: one that this scan makes ready is seen again there."""
        if entry.ref in self._counted:
            return
        if entry.ref:
            self._counted.add(entry.ref)
        self.found.places[place] += 1
        self.found.without_id += not has_id

    def _wake(self, keys: Keys, members: Sequence[tuple[str, str, str]]) -> None:
        max_age_ms = round(self.fleet.settings.JOB_MAX_AGE_SECONDS * 1000)

        def call(whole_text: bool) -> Command:
            return wake_command(keys, self.fleet.keys, members, max_age_ms=max_age_ms, whole_text=whole_text)

        self.fleet.send(call)


def _progress(total: int) -> Progress | None:
    if not sys.stderr.isatty() or not total:
        return None
    return Progress(
        TextColumn("looking through the jobs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
