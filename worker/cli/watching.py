"""Shows result events as they come, as JSON, as lines, or in a table; goes on by itself when Redis comes back."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rich.console import Console

from worker.broker.connection import sync_client
from worker.cli.endings import place, redis_or_stop
from worker.cli.follow import Follower
from worker.cli.result import read_result
from worker.cli.result_table import ResultTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from settings import Settings
    from worker.cli.result import Result

_WAIT_SECONDS = 1.0
_REDRAW_SECONDS = 0.25
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events to show, and after how many of them to end. An empty set means all."""

    outcomes: frozenset[str]
    job_ids: frozenset[str]
    count: int | None

    def __call__(self, result: Result) -> bool:
        """Whether to show this one."""
        return (not self.outcomes or result.outcome in self.outcomes) and (
            not self.job_ids or result.job_id in self.job_ids
        )


def watch_results(found: Settings, wanted: Wanted, *, last: int | None, as_json: bool) -> None:
    """Show events until there were enough, or until Ctrl-C."""
    with ExitStack() as stack, redis_or_stop(found):
        client = stack.enter_context(sync_client(found))
        client.ping()  # a Redis that was never there is a mistake; one that goes away later comes back
        follower = Follower(client, found.RESULTS_CHANNEL, last=last)
        console = Console()
        try:
            if as_json or not console.is_terminal:
                _show_lines(_events(follower, found, _WAIT_SECONDS, _tell), wanted, as_json=as_json)
            else:
                table = stack.enter_context(ResultTable(console, f"{found.RESULTS_CHANNEL} at {place(found)}"))
                _show_table(_events(follower, found, _REDRAW_SECONDS, table.note), wanted, table)
        except KeyboardInterrupt:
            pass


def _show_lines(batches: Iterator[list[Result]], wanted: Wanted, *, as_json: bool) -> None:
    shown = 0
    for results in batches:
        for result in filter(wanted, results):
            sys.stdout.write((result.as_json() if as_json else result.as_line()) + "\n")
            shown += 1
            if shown == wanted.count:
                return
        sys.stdout.flush()


def _show_table(batches: Iterator[list[Result]], wanted: Wanted, table: ResultTable) -> None:
    shown = 0
    for results in batches:
        for result in filter(wanted, results):
            table.add(result)
            shown += 1
            if shown == wanted.count:
                return
        table.draw()


def _events(
    follower: Follower, found: Settings, wait_seconds: float, note: Callable[[str], None]
) -> Iterator[list[Result]]:
    """What came, again and again, an empty list too; ``note`` is told when Redis goes away and when it is back."""
    pause = _FIRST_PAUSE_SECONDS
    is_away = False
    while True:
        try:
            entries = follower.wait(wait_seconds)
        except (RedisConnectionError, RedisTimeoutError) as error:
            if not is_away:
                note(f"Redis at {place(found)} is away, trying again: {error}")
            is_away = True
            yield []
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            continue
        if is_away:
            note(f"Redis at {place(found)} is back")
        is_away, pause = False, _FIRST_PAUSE_SECONDS
        yield [result for entry in entries if (result := read_result(entry.event)) is not None]


def _tell(message: str) -> None:
    typer.echo(f"lock-worker: {message}", err=True)
