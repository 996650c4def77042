"""Keeps what a search for jobs has found, by job, and sorts out what it saw twice because it moved meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from worker.cli.show.job_view import End, JobView

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from worker.cli.result import Result
    from worker.cli.show.job_view import Place, Remembered
    from worker.message.controls import Note

#: The most jobs that are kept, and the most messages and events of one of them. There may be any number.
MAX_JOBS = 1000
MAX_OF_A_JOB = 100


class Findings:
    """What was found.

    Args:
        began_ms: when the search began, in milliseconds of the server's clock.

    Attributes:
        left_out: there was more than is kept.
    """

    def __init__(self, began_ms: int) -> None:
        self._began_ms = began_ms
        self._views: dict[str, JobView] = {}
        self.left_out = False

    @property
    def jobs(self) -> list[JobView]:
        """The jobs that were found: those that have not ended first, then the newest."""
        found = [view for view in self._views.values() if view.state != "unknown"]
        return sorted(found, key=lambda view: view.place is None)

    def add_new(self, job_id: str | None, place: Place) -> None:
        """Add a message that no worker has taken yet."""
        self._add_place(self._view(job_id, f"new {len(self._views)}"), place)

    def add_record(self, job_id: str | None, place: Place) -> None:
        """Add the record of a job in place of what was seen of it before it moved."""
        view = self._view(job_id, f"record {place.ref}")
        if view is not None:
            was_just_taken = (place.received_ms or 0) >= self._began_ms
            view.places = [
                other for other in view.places if other.ref != place.ref and not (was_just_taken and other.ref is None)
            ]
        self._add_place(view, place)

    def refs(self, queue: str) -> set[str]:
        """Return the records of a queue that were found."""
        places = (place for view in self._views.values() for place in view.places)
        return {place.ref for place in places if place.ref is not None and place.queue == queue}

    def forget(self, queue: str, refs: AbstractSet[str]) -> None:
        """Drop records of a queue that are gone: their jobs have ended since."""
        for view in self._views.values():
            view.places = [place for place in view.places if place.queue != queue or place.ref not in refs]

    def add_end(self, entry: str, result: Result) -> None:
        """Add an event of the results, the newest first."""
        view = self._view(result.job_id, "")
        if view is None:
            return
        if int(entry.partition("-")[0]) >= self._began_ms:  # a new message that was seen was taken and has ended since
            view.places = [place for place in view.places if place.ref is not None]
        self._append_end(view, End(json.loads(result.text), result, entry=entry))

    def add_letter(self, entry: str, queue: str | None, result: Result) -> None:
        """Add a dead letter, after all results."""
        view = self._view(result.job_id, "")
        if view is None:
            return
        for number, end in enumerate(view.ends):
            if end.result.text == result.text:
                view.ends[number] = replace(end, letter=entry, queue=queue)
                return
        self._append_end(view, End(json.loads(result.text), result, letter=entry, queue=queue))

    def remember(self, job_id: str, remembered: Remembered) -> None:
        """Add what the id memory says."""
        view = self._view(job_id, "")
        if view is not None:
            view.remembered = remembered

    def cancel(self, job_id: str, note: Note) -> None:
        """Add who cancelled a job id."""
        view = self._view(job_id, "")
        if view is not None:
            view.cancel = note

    def cancel_of(self, job_id: str) -> Note | None:
        """Return who cancelled a job id; None: nobody did."""
        view = self._views.get(f"id {job_id}")
        return None if view is None else view.cancel

    def is_claimed(self, job_id: str) -> bool:
        """Return True if the id memory says that a worker took the job and has not ended it."""
        view = self._views.get(f"id {job_id}")
        return view is not None and view.remembered is not None and view.remembered.is_claimed

    def _add_place(self, view: JobView | None, place: Place) -> None:
        if view is None or len(view.places) >= MAX_OF_A_JOB:
            self.left_out = True
        else:
            view.places.append(place)

    def _append_end(self, view: JobView, end: End) -> None:
        if len(view.ends) >= MAX_OF_A_JOB:
            self.left_out = True
        else:
            view.ends.append(end)

    def _view(self, job_id: str | None, without_id: str) -> JobView | None:
        """Return what is known of a job; None: too many are kept already. ``without_id`` names one without an id."""
        key = without_id if job_id is None else f"id {job_id}"
        if key not in self._views:
            if len(self._views) >= MAX_JOBS:
                self.left_out = True
                return None
            self._views[key] = JobView(job_id)
        return self._views[key]
