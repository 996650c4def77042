"""The newest result events in a table on a terminal, with the totals of all, redrawn in place."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from worker.cli.result import Result

_RATE_SECONDS = 10.0
#: Lines of the screen that are not rows of the table.
_OTHER_LINES = 6


class ResultTable:
    """A table that is on the screen from ``with`` to its end, and stays there as it was last drawn."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._note = ""
        self._newest: deque[Result] = deque(maxlen=200)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._arrivals: deque[float] = deque()
        self._started = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        self.draw()
        return self

    def __exit__(self, *_: object) -> None:
        self.draw()
        self._live.stop()

    def add(self, result: Result) -> None:
        """Count an event, and show it with the next drawing."""
        self._newest.append(result)
        self._counts[result.outcome, result.style] += 1
        self._arrivals.append(time.monotonic())

    def note(self, message: str) -> None:
        """Show a message below the totals."""
        self._note = message

    def draw(self) -> None:
        """Bring the screen up to date."""
        self._live.update(Group(self._totals(), self._table()), refresh=True)

    def _totals(self) -> RenderableType:
        now = time.monotonic()
        while self._arrivals and self._arrivals[0] < now - _RATE_SECONDS:
            self._arrivals.popleft()
        rate = len(self._arrivals) / min(_RATE_SECONDS, max(1.0, now - self._started))
        total = self._counts.total()
        lines = Text(f"{self._title}\n", style="dim")
        lines.append(f"{total:,} event{'' if total == 1 else 's'}, {rate:,.1f}/s", style="not dim bold")
        for (outcome, style), count in sorted(self._counts.items(), key=lambda item: -item[1]):
            lines.append(" · ", style="dim")
            lines.append(f"{count:,} {printable(outcome)}", style=f"not dim {style}")
        if self._note:
            lines.append(f"\n{self._note}", style="not dim yellow")
        return lines

    def _table(self) -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("time", no_wrap=True, width=8)
        table.add_column("outcome", no_wrap=True, width=10)
        table.add_column("conversation", no_wrap=True, overflow="ellipsis", ratio=3, min_width=12)
        table.add_column("calls", justify="right", width=5)
        table.add_column("job", no_wrap=True, overflow="ellipsis", ratio=2, min_width=8)
        table.add_column("why not", no_wrap=True, overflow="ellipsis", ratio=4)
        rows = max(1, self._console.height - _OTHER_LINES)
        for result in list(self._newest)[-rows:]:
            table.add_row(
                result.clock_time,
                Text(printable(result.outcome), style=result.style),
                Text(printable(result.conversation_id)),
                str(result.attempts),
                Text(printable(result.job_id)),
                Text(printable(result.problem)),
            )
        return table
