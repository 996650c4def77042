"""Lists dead letters, or sends their jobs again in batches. Standard output gets the new ids, or a JSON object."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import typer
from redis.exceptions import RedisError

from tasks.plural import plural
from worker.broker.command_line_moves import replay_command
from worker.broker.connection import sync_client
from worker.broker.keys import Keys
from worker.broker.refusals import was_refused
from worker.cli.dead_letters import NoJobError, pages
from worker.cli.exit import FAILED, fail, redis_address, redis_or_stop, report_if_interrupted
from worker.cli.refusals import described
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from settings import Settings
    from worker.cli.dead_letters import DeadLetter, DeadLetterFilter

_PROBLEMS_SHOWN = 20


@dataclass(slots=True)
class _Account:
    """The results of the letters so far.

    ``sent`` has an entry for each new job, ``unsure`` is the size of a batch without an answer yet, ``missing`` has the
    job ids without a letter so far.
    """

    sent: list[dict[str, str]] = field(default_factory=list)
    unsure: int = 0
    stay: int = 0
    gone: int = 0
    missing: set[str] = field(default_factory=set)

    def cut_short(self) -> str:
        """Return the report of a command that ends early."""
        known = f"{plural(len(self.sent), 'job')} sent again"
        if not self.unsure:
            return known
        return (
            f"{known}; whether the next {self.unsure:,} were is not known.\n"
            "Ask once more: those that were are no dead letters any more."
        )

    def as_json(self) -> str:
        """Return the account for programs, in one line."""
        told = {
            "sent": self.sent,
            "left": self.stay,
            "gone": self.gone,
            "unsure": self.unsure,
            "missing": sorted(self.missing),
        }
        return printable(json.dumps(told, ensure_ascii=False))


def list_letters(settings: Settings, chosen: DeadLetterFilter, *, as_json: bool) -> None:
    """Show the dead letters that a replay would send, and those that would stay."""
    count = 0
    with report_if_interrupted(lambda: "nothing was changed"), redis_or_stop(settings), sync_client(settings) as client:
        for letters in pages(client, settings.DEAD_STREAM, chosen):
            for letter in letters:
                count += 1
                sys.stdout.write((letter.result.as_json() if as_json else _line(letter)) + "\n")
    typer.echo(f"{plural(count, 'dead letter')} in {settings.DEAD_STREAM} at {redis_address(settings)}", err=True)


def replay_letters(settings: Settings, chosen: DeadLetterFilter, priority: int, *, as_json: bool) -> None:
    """Send the jobs again. Exits with status 1 if there was none to send, or if a job id has no dead letter.

    Prints the new ids as they are sent; with ``as_json`` one object at the end, also if an error ends it early.
    """
    account = _Account(missing=set(chosen.names))
    with report_if_interrupted(account.cut_short), redis_or_stop(settings), sync_client(settings) as client:
        try:
            for letters in pages(client, settings.DEAD_STREAM, chosen):
                account.missing -= {name for letter in letters for name in (letter.result.job_id, letter.entry)}
                for job_id in _replay(client, settings, letters, priority, account):
                    if not as_json:
                        sys.stdout.write(f"{job_id}\n")
                sys.stdout.flush()
        finally:
            if as_json:
                sys.stdout.write(f"{account.as_json()}\n")
    _report(settings, account)


def _report(settings: Settings, account: _Account) -> None:
    """Say on standard error how it went, and end with the status of that."""
    if account.stay > _PROBLEMS_SHOWN:
        typer.echo(f"... and {account.stay - _PROBLEMS_SHOWN:,} more", err=True)
    for job_id in sorted(account.missing):
        typer.echo(f"{printable(job_id)}: there is no such dead letter", err=True)
    left = f"; {plural(account.stay, 'dead letter')} without a valid job left in place" if account.stay else ""
    address = redis_address(settings)
    if account.sent:
        queues = printable(", ".join(sorted({job["queue"] for job in account.sent})))
        typer.echo(f"{plural(len(account.sent), 'job')} sent again to {queues} at {address}{left}", err=True)
    elif account.gone:
        fail(f"nothing was sent: another command was quicker{left}")
    elif account.stay:
        fail(f"nothing was sent{left}")
    else:
        fail(f"nothing was sent: no dead letter in {settings.DEAD_STREAM} at {address} fits")
    if account.missing:
        raise typer.Exit(FAILED)


def _replay(
    client: Redis, settings: Settings, letters: list[DeadLetter], priority: int, account: _Account
) -> Iterator[str]:
    """Send the jobs of these letters again; yield the new ids."""
    batches: dict[str, list[tuple[str, DeadLetter, bytes]]] = {}
    for letter in letters:
        job_id = str(uuid4())
        try:
            message = letter.repeated(job_id, datetime.now(UTC))
        except NoJobError as why:
            account.stay += 1
            if account.stay <= _PROBLEMS_SHOWN:
                typer.echo(printable(f"{letter.result.job_id}: {why}"), err=True)
        else:
            batches.setdefault(letter.queue or settings.LOCK_QUEUE, []).append((job_id, letter, message))
    for queue, batch in batches.items():
        yield from _send(client, settings, account, queue=queue, batch=batch, priority=priority)


def _send(
    client: Redis,
    settings: Settings,
    account: _Account,
    *,
    queue: str,
    batch: list[tuple[str, DeadLetter, bytes]],
    priority: int,
) -> list[str]:
    """Send jobs again to the queue that they came from; return the new ids."""
    entries = [(letter.entry, message) for _, letter, message in batch]
    call = replay_command(Keys(queue), settings.DEAD_STREAM, entries, priority=priority)
    account.unsure = len(batch)
    try:
        answers: Any = client.execute_command(*call)  # type: ignore[no-untyped-call]  # redis-py has no types for it
    except RedisError as error:
        if was_refused(error):  # replay.lua is all or nothing
            account.unsure = 0
        fail(f"Redis at {redis_address(settings)}{described(error)}\n{account.cut_short()}")
    sent = [
        {"job_id": job_id, "replay_of": letter.result.job_id, "queue": queue}
        for (job_id, letter, _), was_sent in zip(batch, answers, strict=True)
        if was_sent
    ]
    account.sent += sent
    account.gone += len(batch) - len(sent)
    account.unsure = 0
    return [job["job_id"] for job in sent]


def _line(letter: DeadLetter) -> str:
    try:
        letter.repeated("", datetime.now(UTC))
    except NoJobError:
        return f"{letter.result.as_dated_line()} (no valid job: would stay)"
    return letter.result.as_dated_line()
