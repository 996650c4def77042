"""Lists dead letters, or sends their jobs again, in batches; the new ids alone go to standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer
from celery import uuid
from redis.exceptions import RedisError

from worker.broker.connection import sync_client
from worker.broker.keys import Keys
from worker.broker.moves import replay_command
from worker.cli.counted import counted
from worker.cli.dead_letters import pages
from worker.cli.endings import place, redis_or_stop, stop
from worker.cli.job_input import BadJob
from worker.cli.printable import printable

if TYPE_CHECKING:
    from redis import Redis

    from settings import Settings
    from worker.cli.dead_letters import Chosen, DeadLetter

_PROBLEMS_SHOWN = 20


def list_letters(found: Settings, chosen: Chosen) -> None:
    """Show what a replay would find."""
    count = 0
    with redis_or_stop(found), sync_client(found) as client:
        for letters in pages(client, found.DEAD_STREAM, chosen):
            count += len(letters)
            sys.stdout.write("".join(letter.result.as_line() + "\n" for letter in letters))
    typer.echo(f"{counted(count, 'dead letter')} in {found.DEAD_STREAM} at {place(found)}", err=True)


def replay_letters(found: Settings, chosen: Chosen, priority: int) -> None:
    """Send the jobs again. Ends with status 1 if there was none to send."""
    sent = stay = 0
    with redis_or_stop(found), sync_client(found) as client:
        for letters in pages(client, found.DEAD_STREAM, chosen):
            messages: list[tuple[str, str, bytes]] = []
            for letter in letters:
                job_id = uuid()
                try:
                    messages.append((job_id, letter.entry, letter.repeated(job_id)))
                except BadJob as why:
                    stay += 1
                    _tell(letter, why, stay)
            ids = _send(client, found, messages, priority, sent)
            sent += len(ids)
            sys.stdout.write("".join(f"{one}\n" for one in ids))
            sys.stdout.flush()
    left = f"; {counted(stay, 'dead letter')} without a valid job {'stays' if stay == 1 else 'stay'}" if stay else ""
    if not sent:
        stop(f"nothing was sent: no dead letter in {found.DEAD_STREAM} at {place(found)} fits{left}")
    typer.echo(f"{counted(sent, 'job')} sent again to {found.LOCK_QUEUE} at {place(found)}{left}", err=True)


def _send(
    client: Redis, found: Settings, messages: list[tuple[str, str, bytes]], priority: int, sent: int
) -> list[str]:
    """Send some; the ids of those that were, for somebody else may have been quicker."""
    if not messages:
        return []
    letters = [(entry, message) for _, entry, message in messages]
    call = replay_command(Keys(found.LOCK_QUEUE), found.DEAD_STREAM, letters, priority=priority, whole_text=True)
    try:
        answers: Any = client.execute_command(*call)  # type: ignore[no-untyped-call]  # redis-py has no types for it
    except RedisError as error:
        stop(
            f"Redis at {place(found)}: {error}\n{counted(sent, 'job')} sent again; whether the next {len(messages):,} "
            "were is not known. Ask once more: those that were are no dead letters any more."
        )
    return [job_id for (job_id, _, _), was_sent in zip(messages, answers, strict=True) if was_sent]


def _tell(letter: DeadLetter, why: BadJob, number: int) -> None:
    if number <= _PROBLEMS_SHOWN:
        typer.echo(printable(f"{letter.result.job_id}: {why}"), err=True)
