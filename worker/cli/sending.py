"""Looks at all jobs, then sends them in batches. Job ids go to standard output, all else to standard error."""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.cli.counted import counted
from worker.cli.endings import FAILED, WRONG_USE, cut_short, place, stop
from worker.cli.job_input import BadJob
from worker.cli.printable import printable
from worker.cli.producer import BATCH_JOBS, Order, Producer, SendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from settings import Settings
    from worker.cli.job_input import Found

_PROBLEMS_SHOWN = 20


def check(jobs: Iterable[Found], *, needs_one: bool) -> int:
    """How many jobs there are. Anything wrong with them ends the command, with all that is wrong."""
    count = bad = 0
    for where, job in jobs:
        count += 1
        if isinstance(job, BadJob):
            bad += 1
            if bad <= _PROBLEMS_SHOWN:
                typer.echo(f"{where}: {printable(str(job))}", err=True)
    if bad > _PROBLEMS_SHOWN:
        typer.echo(f"... and {bad - _PROBLEMS_SHOWN:,} more", err=True)
    if bad:
        stop(f"nothing was sent: {counted(bad, 'job')} of {count:,} {'is' if bad == 1 else 'are'} not valid", FAILED)
    if count == 0:
        stop("there are no jobs in the input", FAILED)
    if needs_one and count > 1:
        stop(f"--job-id is for one job, and there are {count:,}", WRONG_USE)
    return count


def send(found: Settings, jobs: Iterator[Found], total: int, options: Mapping[str, Any]) -> None:
    """Send them, and print their ids as each batch is in Redis."""
    started = time.monotonic()
    sent = unsure = 0
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("sending"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or total <= BATCH_JOBS,
        transient=True,
        # With both on one terminal the ids scroll by above the bar; otherwise they must not come near it.
        redirect_stdout=sys.stdout.isatty(),
    )
    try:
        with cut_short(lambda: _account(sent, total, unsure)), Producer(found) as producer, progress:
            bar = progress.add_task("", total=total)
            while batch := _batch(jobs, options):
                unsure = len(batch)
                ids = producer.send(batch)
                sent, unsure = sent + len(ids), 0
                sys.stdout.write("".join(f"{one}\n" for one in ids))
                sys.stdout.flush()
                progress.update(bar, completed=sent)
    except SendError as error:
        stop(f"Redis at {place(found)}: {error}\n{_account(sent, total, unsure)}", FAILED)
    seconds = time.monotonic() - started
    typer.echo(f"{counted(sent, 'job')} sent to {found.LOCK_QUEUE} at {place(found)} in {seconds:.1f} s", err=True)


def _batch(jobs: Iterator[Found], options: Mapping[str, Any]) -> list[Order]:
    batch = []
    for where, job in islice(jobs, BATCH_JOBS):
        if isinstance(job, BadJob):  # it was right when it was checked
            stop(f"{where}: the file was changed meanwhile. {job}", FAILED)
        batch.append(Order(dict(job), options))
    return batch


def _account(sent: int, total: int, unsure: int) -> str:
    known = f"{sent:,} of {counted(total, 'job')} sent"
    if not unsure:
        return known
    return (
        f"{known}; whether the next {unsure:,} arrived is not known.\n"
        "Sending one again is harmless: it is locked all the same, and has two events."
    )
