"""Cancels the jobs that match: first no worker calls one any more, then each is found and remembered by its id."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.cli.cancel.barrier import Barrier
from worker.cli.cancel.remembrance import remember_seconds
from worker.cli.cancel.scan import Scan
from worker.cli.controls import answers
from worker.cli.controls.obedience import wait_until_obeyed
from worker.cli.controls.steering import Done, steering

if TYPE_CHECKING:
    from settings import Settings
    from worker.cli.cancel.scan import Found
    from worker.message.controls import Note
    from worker.message.selector import Selector


def cancel_matching(settings: Settings, selector: Selector, reason: str, seconds: int | None, *, as_json: bool) -> None:
    """Cancel the jobs that match; ``seconds``: those too that come within that time."""
    with steering(settings) as fleet:
        note = fleet.note(reason, seconds)
        barrier = Barrier(fleet, selector, note, seconds)
        done = barrier.raise_(fleet.event("cancelled", note, selector=selector.fields))
        fleet.account = "A cancel is in force for a minute at least; no job was looked at yet."
        wait_until_obeyed(fleet, done.version)
        scan = Scan(
            fleet,
            lambda job: selector.matches(job.job),
            replace(note, until_ms=0),
            ttl_ms=remember_seconds(settings, seconds) * 1000,
            wakes_without_id=seconds is not None,
        )
        for _ in scan.run():
            fleet.account = f"{scan.found} cancelled until then; not all were looked at. Ask once more."
            barrier.keep()
        barrier.lower()
        answers.finish(
            fleet, Done(fleet.read().version, is_changed=True), note,
            said=_sentence(selector, scan.found, note), what="the cancel", as_json=as_json,
            action="cancelled", selector=selector.fields, found=scan.found.places, without_id=scan.found.without_id,
        )  # fmt: skip


def _sentence(selector: Selector, found: Found, note: Note) -> str:
    which = f" that {'matches' if found.total == 1 else 'match'} {answers.shown(selector)}" if selector.fields else ""
    told = f"{found}{which} {'is' if found.total == 1 else 'are'} cancelled."
    if note.until_ms:
        told += f" So are those that come until {answers.short_time(note.until_ms)} (lock-worker release --cancel)."
    elif found.without_id:
        told += (
            f" {plural(found.without_id, 'job')} of them came without a job id, by which it could be remembered: "
            "unless a worker took it in this minute, it goes on. With --for such jobs end too."
        )
    return told
