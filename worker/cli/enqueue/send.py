"""Checks all jobs, then sends them in batches. Job ids go to standard output, all else to standard error."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.plural import plural
from worker.cli.enqueue.job_input import BadJobError
from worker.cli.exit import FAILED, USAGE_ERROR, fail, redis_address, report_if_interrupted
from worker.cli.producer import BATCH_JOBS, Arrival, OutgoingJob, Producer, SendError
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from settings import Settings
    from worker.cli.enqueue.job_input import Found

_PROBLEMS_SHOWN = 20


@dataclass(slots=True)
class _Account:
    """The results of the jobs so far.

    Attributes:
        total: the jobs in the input.
        arrived: the jobs that are in Redis.
        batch: the places in the input of the batch whose answers are missing.
        last: the place in the input of the last job sent.
    """

    total: int
    arrived: int = 0
    batch: Sequence[str] = field(default_factory=list)
    last: str = ""

    def cut_short(self, arrivals: Sequence[Arrival] = ()) -> str:
        """Return the report of a command that ends early: which jobs arrived and which did not.

        ``arrivals`` are those of the batch; empty: nothing is known of it.
        """
        arrivals = arrivals or [Arrival.UNKNOWN] * len(self.batch)
        counts = Counter(arrivals)
        arrived, unknown = self.arrived + counts[Arrival.YES], counts[Arrival.UNKNOWN]
        missing = self.total - arrived - unknown
        sums = [f"{arrived:,} of {plural(self.total, 'job')} arrived"]
        sums += [f"{unknown:,} may have arrived"] if unknown else []
        sums += [f"{missing:,} did not arrive"] if missing else []
        lines = [*self._runs(arrivals), "; ".join(sums)]
        if unknown:
            lines.append("Sending one again is harmless: if both arrive, there are two events of one lock.")
        return "\n".join(lines)

    def _runs(self, arrivals: Sequence[Arrival]) -> list[str]:
        """Return the jobs of the batch that did not arrive, or may not have; one line for each run of neighbours."""
        if self.total == 1:
            return []
        runs = [
            ([where for where, _ in run], arrival)
            for arrival, run in groupby(zip(self.batch, arrivals, strict=True), key=lambda each: each[1])
        ]
        lines = [
            f"{wheres[0]}{f' to {wheres[-1]}' if len(wheres) > 1 else ''}: {arrival.value}"
            for wheres, arrival in runs
            if arrival is not Arrival.YES
        ]
        if len(lines) > _PROBLEMS_SHOWN:
            lines[_PROBLEMS_SHOWN:] = [f"... and {len(lines) - _PROBLEMS_SHOWN:,} more such places"]
        if self.last and self.arrived + len(self.batch) < self.total:
            lines.append(f"all after {self.last}: {Arrival.NO.value}")
        return lines


def check(jobs: Iterable[Found], *, needs_one: bool) -> int:
    """Return the number of jobs. Invalid jobs end the command, with all that is wrong."""
    count = bad = 0
    for where, job in jobs:
        count += 1
        if isinstance(job, BadJobError):
            bad += 1
            if bad <= _PROBLEMS_SHOWN:
                typer.echo(f"{where}: {printable(str(job))}", err=True)
    if bad > _PROBLEMS_SHOWN:
        typer.echo(f"... and {bad - _PROBLEMS_SHOWN:,} more", err=True)
    if bad:
        fail(f"nothing was sent: {plural(bad, 'job')} of {count:,} {'is' if bad == 1 else 'are'} not valid", FAILED)
    if count == 0:
        fail("there are no jobs in the input", FAILED)
    if needs_one and count > 1:
        fail(f"--job-id is for one job, and there are {count:,}", USAGE_ERROR)
    return count


def send(settings: Settings, jobs: Iterator[Found], total: int, options: Mapping[str, Any]) -> None:
    """Send the jobs, and print the ids of each batch that is in Redis."""
    started = time.monotonic()
    account = _Account(total)
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("sending"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or total <= BATCH_JOBS,
        transient=True,
        # On a terminal, the ids scroll by above the bar; redirected output must bypass it.
        redirect_stdout=sys.stdout.isatty(),
    )
    try:
        with report_if_interrupted(account.cut_short), Producer(settings) as producer, progress:
            bar = progress.add_task("", total=total)
            while batch := _batch(jobs, options, account):
                account.batch, account.last = list(batch), next(reversed(batch))
                ids = producer.send(list(batch.values()))
                account.arrived, account.batch = account.arrived + len(ids), []
                _print(ids)
                progress.update(bar, completed=account.arrived)
    except SendError as error:
        report = account.cut_short(error.arrivals)
        with report_if_interrupted(lambda: report):
            _print(error.ids)
        fail(f"Redis at {redis_address(settings)}{error}\n{report}", FAILED)
    seconds = time.monotonic() - started
    typer.echo(
        f"{plural(account.arrived, 'job')} sent to {settings.LOCK_QUEUE} at {redis_address(settings)} "
        f"in {seconds:.1f} s",
        err=True,
    )


def _print(ids: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{one}\n" for one in ids))
    sys.stdout.flush()


def _batch(jobs: Iterator[Found], options: Mapping[str, Any], account: _Account) -> dict[str, OutgoingJob]:
    """Return the next jobs by their places in the input."""
    batch = {}
    for where, job in islice(jobs, BATCH_JOBS):
        if isinstance(job, BadJobError):  # it was valid when it was checked
            fail(f"{where}: the file was changed meanwhile. {printable(str(job))}\n{account.cut_short()}", FAILED)
        batch[where] = OutgoingJob(dict(job), options)
    return batch
