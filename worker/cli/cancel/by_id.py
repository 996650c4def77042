"""Cancels jobs by their ids: they are remembered, and those that wait are ended now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.plural import plural
from worker.broker.keys import digest
from worker.cli.cancel.remembrance import remember_seconds
from worker.cli.cancel.scan import Scan
from worker.cli.controls import answers
from worker.cli.controls.queues import fleet_queues
from worker.cli.controls.steering import Done, steering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from settings import Settings
    from worker.cli.controls.steering import Steering
    from worker.message.controls import Note

#: Ids in one call, and ids that the event names.
_BATCH, _NAMED = 500, 100


def cancel_ids(settings: Settings, ids: Sequence[str], reason: str, seconds: int | None, *, as_json: bool) -> None:
    """Cancel the jobs with these ids, those to come included."""
    with steering(settings) as fleet:
        note = fleet.note(reason, remember_seconds(settings, seconds))
        ended = _ended(fleet, ids)
        version = _remember(fleet, ids, note)
        remembered = f"{plural(len(ids), 'job id')} {'is' if len(ids) == 1 else 'are'} cancelled"
        said = fleet.account = f"{remembered}, and remembered until {answers.short_time(note.until_ms)}."
        known = frozenset(ids)
        scan = Scan(fleet, lambda job: job.id in known, note, places=("delayed", "held"))
        for _ in scan.run():
            pass
        if scan.found.total:
            said += f" {scan.found} of them waited and end now."
        if ended:
            said += (
                f" {ended:,} of them {'has' if ended == 1 else 'have'} ended already: lock-worker show JOB_ID says how."
            )
        answers.finish(
            fleet, Done(version, is_changed=True), note, said=said, what="the cancel", as_json=as_json,
            action="cancelled", job_ids=len(ids), found=scan.found.places, ended=ended,
        )  # fmt: skip


def _ended(fleet: Steering, ids: Sequence[str]) -> int:
    """Return how many of the ids are those of jobs that have ended, as far as that is remembered."""
    ended: set[str] = set()
    for keys in fleet_queues(fleet.client, fleet.keys):
        for first in range(0, len(ids), _BATCH):
            some = ids[first : first + _BATCH]
            answers: Any = fleet.client.mget([f"{keys.id_prefix}{digest(job_id)}" for job_id in some])
            ended.update(
                job_id for job_id, known in zip(some, answers, strict=True) if (known or b"").startswith(b"ended ")
            )
    return len(ended)


def _remember(fleet: Steering, ids: Sequence[str], note: Note) -> int:
    """Remember the ids; return the version of the controls. One event notes all of them."""
    event = fleet.event("cancelled", note, jobs=len(ids), job_ids=ids[:_NAMED])
    version = 0
    for first in range(0, len(ids), _BATCH):
        some = ids[first : first + _BATCH]
        ttl_ms = note.until_ms - note.at_ms
        version = fleet.cancel_ids([*map(digest, some)], replace(note, until_ms=0), ttl_ms=ttl_ms, event=event)
        event = ""
        fleet.account = f"{first + len(some):,} of {plural(len(ids), 'job id')} are cancelled."
    return version
