"""Shows the progress of the demo: a bar and the newest events on a terminal, a line a second in a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.plural import plural
from worker.cli.demo.reconciliation import ends_text
from worker.observe.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from worker.broker.state import State
    from worker.cli.demo.reconciliation import Reconciliation

_LOG_EVERY_SECONDS = 1.0
_NEWEST = 8
#: As wide as the demo's own ids.
_LEAST_ID = 12


class Screen:
    """The progress within a ``with`` block; afterwards a terminal is cleared, and a log keeps it."""

    def __init__(self, console: Console, reconciliation: Reconciliation) -> None:
        self._console = console
        self._reconciliation = reconciliation
        self._started = time.monotonic()
        self._next_line = self._started + _LOG_EVERY_SECONDS
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._console.print()

    def show(self, state: State) -> None:
        """Show the present state."""
        seconds = time.monotonic() - self._started
        settled = len(self._reconciliation.results) + state.totals.get("deduplicated", 0)
        total = len(self._reconciliation.sent)
        line = f"{seconds:4.1f} s  {settled} of {total} settled"
        if self._live is not None:
            self._live.update(self._view(line, settled, state), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line += _LOG_EVERY_SECONDS
            self._console.print(
                f"  {line}: {ends_text(self._reconciliation.outcomes) or 'nothing yet'}", soft_wrap=True
            )

    def _view(self, line: str, settled: int, state: State) -> Group:
        events = Table.grid(padding=(0, 2, 0, 0), expand=True)
        events.add_column(width=2)
        events.add_column(no_wrap=True, width=10)
        events.add_column(no_wrap=True, overflow="ellipsis", ratio=1, min_width=_LEAST_ID)
        events.add_column(no_wrap=True, justify="right", width=7)
        events.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
        for result in self._reconciliation.results[-_NEWEST:]:
            events.add_row(
                "",
                Text(result.outcome, style=result.style),
                Text(printable(result.conversation_id) or "-"),
                plural(result.attempts, "call"),
                Text(printable(result.problem), style="dim"),
            )
        head = Table.grid(expand=True)
        head.add_row(ProgressBar(total=len(self._reconciliation.sent), completed=settled))
        head.add_row(f"{line} · {state.ready} ready · {state.in_flight} in flight · {state.waiting} delayed")
        head.add_row(ends_text(self._reconciliation.outcomes))
        return Group(head, events)
