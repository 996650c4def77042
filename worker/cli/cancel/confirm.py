"""Asks before all jobs are cancelled."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.broker.connection import sync_client
from worker.broker.keys import Keys
from worker.cli.cancel.places import count_jobs
from worker.cli.controls.queues import fleet_queues
from worker.cli.exit import FAILED, USAGE_ERROR, fail, is_confirmed, redis_address, redis_or_stop

if TYPE_CHECKING:
    from settings import Settings


def confirm_all(settings: Settings) -> None:
    """Ask whether all jobs of the fleet are meant. Anything but yes ends the command, and nothing is changed."""
    if not sys.stdin.isatty():
        fail("--all ends every job: add --yes where nobody can be asked", USAGE_ERROR)
    with redis_or_stop(settings), sync_client(settings) as client:
        jobs = sum(count_jobs(client, keys) for keys in fleet_queues(client, Keys(settings.LOCK_QUEUE)))
    where = f"{settings.LOCK_QUEUE} at {redis_address(settings)}"
    if not is_confirmed(f"Cancel all jobs of {where} ({plural(jobs, 'job')} now)?"):
        fail("nothing was changed", FAILED)
