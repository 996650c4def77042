"""Shows result events as they come, as JSON, as lines or in a table, and goes on after an outage of Redis."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from redis.exceptions import RedisError
from rich.console import Console
from tenacity import Retrying, retry_if_exception, wait_exponential

from worker.broker.connection import sync_client
from worker.cli.exit import FAILED, fail, redis_address, redis_or_stop
from worker.cli.refusals import described, is_passing
from worker.cli.result import read_result
from worker.cli.watch.follow import FROM_START, Follower, before_the_newest
from worker.cli.watch.result_table import ResultTable
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis
    from tenacity import RetryCallState

    from settings import Settings
    from worker.cli.result import Result
    from worker.cli.watch.follow import Entry

_WAIT_SECONDS = 1.0
_REDRAW_SECONDS = 0.25
#: Between two looks for a Redis that is away, in seconds.
_BACKOFF = wait_exponential(multiplier=0.25, max=2.0)


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """Selects events, and says after how many of them or how many seconds to end. An empty set means all."""

    outcomes: frozenset[str]
    job_ids: frozenset[str]
    conversations: frozenset[str]
    rules: frozenset[str]
    count: int | None
    timeout: float | None

    def __call__(self, result: Result) -> bool:
        """Return True if the filter selects this one."""
        return (
            (not self.outcomes or result.outcome in self.outcomes)
            and (not self.job_ids or result.job_id in self.job_ids)
            and (not self.conversations or any(map(result.is_of_conversation, self.conversations)))
            and (not self.rules or result.rule_id in self.rules)
        )

    @property
    def is_some(self) -> bool:
        """Whether it selects anything but all events."""
        return bool(self.outcomes or self.job_ids or self.conversations or self.rules)

    def __str__(self) -> str:
        """Return the selection as text for people."""
        parts = (
            ("of job", self.job_ids), ("for conversation", self.conversations), ("of rule", self.rules),
            ("with outcome", self.outcomes),
        )  # fmt: skip
        chosen = (f" {name} {printable(' or '.join(sorted(values)))}" for name, values in parts if values)
        return f"events{''.join(chosen)}"


def watch_results(settings: Settings, result_filter: ResultFilter, *, last: int | None, as_json: bool) -> None:
    """Show events until there were enough, until the time is over, or until Ctrl-C.

    ``last``: how many of the newest events to begin with; None: begin with the oldest event.
    """
    until = math.inf if result_filter.timeout is None else time.monotonic() + result_filter.timeout
    stream, server = settings.RESULTS_CHANNEL, redis_address(settings)
    with ExitStack() as stack, redis_or_stop(settings):
        client = stack.enter_context(sync_client(settings))
        client.ping()  # a Redis that is away at the start is a mistake; one that goes away later comes back
        console = Console()
        try:
            follower = Follower(client, stream, after=_begin(client, stream, result_filter, last))
            if as_json or not console.is_terminal:
                waiting = f"waiting for {'new ' if last == 0 else ''}{result_filter} in {stream} at {server}"
                if last == 0 and result_filter.is_some:
                    waiting += "; --from-start and --last show what came before"
                pages = _pages(follower, server, until, _WAIT_SECONDS, note=_tell, redraw=sys.stdout.flush)
                shown = _show_lines(pages, result_filter, waiting, as_json=as_json)
            else:
                table = stack.enter_context(ResultTable(console, f"{result_filter} in {stream} at {server}"))
                pages = _pages(follower, server, until, _REDRAW_SECONDS, note=table.note, redraw=table.draw)
                shown = _show_table(pages, result_filter, table)
        except KeyboardInterrupt:
            return
    if result_filter.timeout is not None and shown < (result_filter.count or 1):
        enough = f" of {result_filter.count:,}" if result_filter.count else ""
        fail(f"{shown:,}{enough} {result_filter} came in {result_filter.timeout:g} s", FAILED)


def _begin(client: Redis, stream: str, result_filter: ResultFilter, last: int | None) -> str:
    def is_wanted(event: bytes) -> bool:
        result = read_result(event)
        return result is not None and result_filter(result)

    return FROM_START if last is None else before_the_newest(client, stream, last, is_wanted)


def _show_lines(pages: Iterator[list[Result]], result_filter: ResultFilter, waiting: str, *, as_json: bool) -> int:
    """Return how many were shown; ``waiting`` is printed once, when there is nothing more to show."""
    shown = 0
    is_waiting_shown = False
    for results in pages:
        for result in filter(result_filter, results):
            sys.stdout.write((result.as_json() if as_json else result.as_line()) + "\n")
            shown += 1
            if shown == result_filter.count:
                return shown
        sys.stdout.flush()
        if not results and not is_waiting_shown:
            _tell(waiting)
            is_waiting_shown = True
    return shown


def _show_table(pages: Iterator[list[Result]], result_filter: ResultFilter, table: ResultTable) -> int:
    shown = 0
    for results in pages:
        for result in filter(result_filter, results):
            table.add(result)
            shown += 1
            if shown == result_filter.count:
                return shown
        table.draw()
    return shown


def _pages(
    follower: Follower,
    server: str,
    until: float,
    wait_seconds: float,
    *,
    note: Callable[[str], None],
    redraw: Callable[[], None],
) -> Iterator[list[Result]]:
    """What came, page by page, an empty one after ``wait_seconds`` without an event.

    ``note`` is told when Redis goes away and when it is back; ``redraw`` is called before each wait in between.
    """

    def left() -> float:
        return max(0.0, until - time.monotonic())

    def read() -> list[Entry]:
        return follower.wait(min(wait_seconds, left())) if left() else []

    def lost(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if state.attempt_number == 1 and isinstance(error, RedisError):
            what, _, _ = described(error).partition("\n")  # how to fix it is not yet the question
            note(f"Redis at {server}{what}; trying again")
        follower.disconnect()
        redraw()

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, RedisError) and is_passing(error)),
        wait=lambda state: min(_BACKOFF(state), left()),
        before_sleep=lost,
    )
    while left():
        entries = retrying(read)
        if retrying.statistics["attempt_number"] > 1 and left():
            note(f"Redis at {server} is back")
        yield [result for entry in entries if (result := read_result(entry.event)) is not None]


def _tell(message: str) -> None:
    typer.echo(f"lock-worker: {message}", err=True)
