"""Discards dead letters: counts them, asks, and deletes those that were counted.

Each page of them is deleted in one step with its event in CONTROL_STREAM, which says who deleted which, and why.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer
from redis.exceptions import RedisError

from tasks.plural import plural
from worker.broker.command_line_moves import discard_command
from worker.broker.connection import sync_client
from worker.broker.control_moves import Trail
from worker.broker.keys import Keys
from worker.broker.refusals import was_refused
from worker.cli.controls.actor import actor
from worker.cli.dead_letters import pages
from worker.cli.exit import FAILED, USAGE_ERROR, fail, is_confirmed, redis_address, redis_or_stop, report_if_interrupted
from worker.cli.refusals import described
from worker.message.control_event import control_event
from worker.message.controls import Note
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from settings import Settings
    from worker.cli.dead_letters import DeadLetter, DeadLetterFilter

#: An event names so many job ids at most.
_NAMED = 100


@dataclass(slots=True)
class _Account:
    """What was found and done so far; ``missing`` are the ids that no dead letter has."""

    found: int = 0
    discarded: int = 0
    missing: set[str] = field(default_factory=set)

    def summary(self) -> str:
        """Return what was done in one line."""
        return f"{plural(self.discarded, 'dead letter')} discarded"


@dataclass(frozen=True, slots=True)
class _Discarder:
    """Deletes dead letters for one who says why. Nothing else deletes any here."""

    client: Redis
    settings: Settings
    reason: str

    def delete(self, letters: Sequence[DeadLetter]) -> int:
        """Delete entries of the dead stream, and note it; return how many of them were there."""
        if not letters:
            return 0
        settings, (seconds, microseconds) = self.settings, self.client.time()
        note = Note(actor(settings), self.reason, seconds * 1000 + microseconds // 1000)
        event = control_event(
            "discarded", note, source=settings.EVENT_SOURCE, queue=settings.LOCK_QUEUE,
            dead_letters=len(letters), job_ids=[letter.result.job_id for letter in letters[:_NAMED]],
        )  # fmt: skip
        call = discard_command(
            Keys(settings.LOCK_QUEUE), settings.DEAD_STREAM, Trail(settings.CONTROL_STREAM, settings.CONTROL_MAXLEN),
            [letter.entry for letter in letters], event=event,
        )  # fmt: skip
        return int(self.client.execute_command(*call))  # type: ignore[no-untyped-call]  # redis-py has no types for it


def discard_letters(settings: Settings, chosen: DeadLetterFilter, *, reason: str, yes: bool, as_json: bool) -> None:
    """Discard the selected dead letters. Exits with status 1 if there is none, an id has none, or the answer is no."""
    account = _Account(missing=set(chosen.names))
    stream, where = settings.DEAD_STREAM, f"{settings.DEAD_STREAM} at {redis_address(settings)}"
    with report_if_interrupted(account.summary), redis_or_stop(settings), sync_client(settings) as client:
        newest = _count(client, stream, chosen, account)
        if account.found and not yes:
            _ask(account, where)
        if account.found:
            discarder = _Discarder(client, settings, reason)
            for letters in pages(client, stream, chosen, newest=newest):
                _discard(discarder, letters, account)
        if as_json:
            told = {"found": account.found, "discarded": account.discarded, "missing": sorted(account.missing)}
            sys.stdout.write(printable(json.dumps(told, ensure_ascii=False)) + "\n")
    for name in sorted(account.missing):
        typer.echo(f"{printable(name)}: there is no such dead letter", err=True)
    if not account.found:
        fail(f"nothing was discarded: no dead letter in {where} fits")
    typer.echo(f"{account.summary()} from {where}", err=True)
    if account.missing:
        raise typer.Exit(FAILED)


def _discard(discarder: _Discarder, letters: Sequence[DeadLetter], account: _Account) -> None:
    """Delete a page of dead letters; an error of Redis ends the command with what was done until then."""
    try:
        account.discarded += discarder.delete(letters)
    except RedisError as error:
        unknown = "" if was_refused(error) else f"; of {len(letters):,} more it is not known"
        fail(f"Redis at {redis_address(discarder.settings)}{described(error)}\n{account.summary()}{unknown}")


def _count(client: Redis, stream: str, chosen: DeadLetterFilter, account: _Account) -> str:
    """Count the selected dead letters; return the newest one's entry."""
    newest = "-"
    for letters in pages(client, stream, chosen):
        for letter in letters:
            account.found += 1
            account.missing -= {letter.entry, letter.result.job_id}
            newest = letter.entry
    return newest


def _ask(account: _Account, where: str) -> None:
    question = f"Delete {plural(account.found, 'dead letter')} from {where}? Their jobs cannot be sent again then."
    if not sys.stdin.isatty():
        fail(f"{question}\nNobody was asked, as there is no terminal: give --yes.", USAGE_ERROR)
    if not is_confirmed(question):
        fail("nothing was discarded")
