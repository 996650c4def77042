"""Lists dead letters, or sends their jobs again in batches. Only the new ids go to standard output."""

from __future__ import annotations

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
    from redis import Redis

    from settings import Settings
    from worker.cli.dead_letters import DeadLetter, DeadLetterFilter

_PROBLEMS_SHOWN = 20


@dataclass(slots=True)
class _Account:
    """The results of the letters so far.

    ``unsure`` is the size of a batch without an answer yet, ``missing`` the job ids without a letter so far.
    """

    sent: int = 0
    unsure: int = 0
    stay: int = 0
    gone: int = 0
    missing: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)

    def cut_short(self) -> str:
        """Return the report of a command that ends early."""
        known = f"{plural(self.sent, 'job')} sent again"
        if not self.unsure:
            return known
        return (
            f"{known}; whether the next {self.unsure:,} were is not known.\n"
            "Ask once more: those that were are no dead letters any more."
        )


def list_letters(settings: Settings, chosen: DeadLetterFilter, *, as_json: bool) -> None:
    """Show the dead letters that a replay would send, and those that would stay."""
    count = 0
    with report_if_interrupted(lambda: "nothing was changed"), redis_or_stop(settings), sync_client(settings) as client:
        for letters in pages(client, settings.DEAD_STREAM, chosen):
            for letter in letters:
                count += 1
                sys.stdout.write((letter.result.as_json() if as_json else _line(letter)) + "\n")
    typer.echo(f"{plural(count, 'dead letter')} in {settings.DEAD_STREAM} at {redis_address(settings)}", err=True)


def replay_letters(settings: Settings, chosen: DeadLetterFilter, priority: int) -> None:
    """Send the jobs again. Exits with status 1 if there was none to send, or if a job id has no dead letter."""
    account = _Account(missing=set(chosen.names))
    with report_if_interrupted(account.cut_short), redis_or_stop(settings), sync_client(settings) as client:
        for letters in pages(client, settings.DEAD_STREAM, chosen):
            account.missing -= {name for letter in letters for name in (letter.result.job_id, letter.entry)}
            _replay(client, settings, letters, priority, account)
    if account.stay > _PROBLEMS_SHOWN:
        typer.echo(f"... and {account.stay - _PROBLEMS_SHOWN:,} more", err=True)
    for job_id in sorted(account.missing):
        typer.echo(f"{printable(job_id)}: there is no such dead letter", err=True)
    left = f"; {plural(account.stay, 'dead letter')} without a valid job left where they are" if account.stay else ""
    if account.sent:
        queues = printable(", ".join(sorted(account.queues)))
        typer.echo(f"{plural(account.sent, 'job')} sent again to {queues} at {redis_address(settings)}{left}", err=True)
    elif account.gone:
        fail(f"nothing was sent: another command was quicker{left}")
    elif account.stay:
        fail(f"nothing was sent{left}")
    else:
        fail(f"nothing was sent: no dead letter in {settings.DEAD_STREAM} at {redis_address(settings)} fits")
    if account.missing:
        raise typer.Exit(FAILED)


def _replay(client: Redis, settings: Settings, letters: list[DeadLetter], priority: int, account: _Account) -> None:
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
        _send(client, settings, account, queue=queue, batch=batch, priority=priority)


def _send(
    client: Redis,
    settings: Settings,
    account: _Account,
    *,
    queue: str,
    batch: list[tuple[str, DeadLetter, bytes]],
    priority: int,
) -> None:
    """Send jobs again to the queue that they came from."""
    entries = [(letter.entry, message) for _, letter, message in batch]
    call = replay_command(Keys(queue), settings.DEAD_STREAM, entries, priority=priority)
    account.unsure = len(batch)
    try:
        answers: Any = client.execute_command(*call)  # type: ignore[no-untyped-call]  # redis-py has no types for it
    except RedisError as error:
        if was_refused(error):  # replay.lua is all or nothing
            account.unsure = 0
        fail(f"Redis at {redis_address(settings)}{described(error)}\n{account.cut_short()}")
    sent = [job_id for (job_id, _, _), was_sent in zip(batch, answers, strict=True) if was_sent]
    if sent:
        account.queues.add(queue)
    account.sent += len(sent)
    account.gone += len(batch) - len(sent)
    account.unsure = 0
    sys.stdout.write("".join(f"{one}\n" for one in sent))
    sys.stdout.flush()


def _line(letter: DeadLetter) -> str:
    try:
        letter.repeated("", datetime.now(UTC))
    except NoJobError:
        return f"{letter.result.as_dated_line()} (no valid job: would stay)"
    return letter.result.as_dated_line()
