"""Shows jobs, as lines or as JSON, also what was found until Ctrl-C."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer

from worker.broker.connection import sync_client
from worker.cli.controls.answers import by_whom
from worker.cli.exit import INTERRUPTED, fail, redis_address, redis_or_stop
from worker.cli.show.as_json import job_json
from worker.cli.show.job_view import JobView
from worker.cli.show.lines import job_lines
from worker.cli.show.search import Search
from worker.observe.printable import printable

if TYPE_CHECKING:
    from settings import Settings
    from worker.cli.show.wanted import Wanted


def show_jobs(settings: Settings, wanted: Wanted, *, events: int | None, as_json: bool) -> None:
    """Show the wanted jobs. Exits with status 1 if there is none, and with 130 if it was interrupted."""
    with redis_or_stop(settings), sync_client(settings) as client:
        search = Search(client, settings, wanted, events=events)
        try:
            search.run()
        except KeyboardInterrupt:
            _write(search, wanted, as_json=as_json)
            fail("interrupted: not all was searched", INTERRUPTED)
    _write(search, wanted, as_json=as_json)
    if search.findings.left_out:
        typer.echo("lock-worker: there is more of it than is shown", err=True)
    if not search.findings.jobs:
        if wanted.job_id is not None:
            fail(_unknown_job(settings, search, wanted.job_id))
        conversation = printable(wanted.conversation_id or "")
        fail(f"no job for conversation {conversation} was found at {redis_address(settings)}")


def _unknown_job(settings: Settings, search: Search, job_id: str) -> str:
    where = f"no job {printable(job_id)} was found at {redis_address(settings)}"
    if search.findings.is_claimed(job_id):
        return f"{where}, but a worker took it, and no event says that it ended: try again"
    cancel = search.findings.cancel_of(job_id)
    if cancel is not None:
        done = "revoked" if cancel.is_revoke else "cancelled"
        return f"{where}\nIts id is {done} {by_whom(cancel)}\nIf it comes, it ends without a call."
    return (
        f"{where}\nIt was never sent, it ended so long ago that neither its event nor its id is kept any more, or its "
        "record was deleted (lock-worker audit counts those)."
    )


def _write(search: Search, wanted: Wanted, *, as_json: bool) -> None:
    jobs = search.findings.jobs
    if as_json:
        views = jobs or [JobView(wanted.job_id)]
        found = job_json(views[0]) if wanted.job_id is not None else [job_json(job) for job in jobs]
        sys.stdout.write(printable(json.dumps(found, ensure_ascii=False)) + "\n")
    else:
        blocks = ["".join(f"{line}\n" for line in job_lines(job, search.now_ms)) for job in jobs]
        sys.stdout.write("\n".join(blocks))
    sys.stdout.flush()
