"""Draws the newest result events in a table on a terminal, with the totals of all, in place."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tasks.plural import plural
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from worker.cli.result import Result

_RATE_SECONDS = 10.0
#: The lines of the screen that are not rows of the table.
_OTHER_LINES = 6
#: The most characters kept for a cell: no screen shows more.
_MAX_CELL = 300
#: The blanks after each column.
_GAP = 2
_ORDER = ("time", "outcome", "conversation", "calls", "job", "why not")
#: The columns beside the ids: all of them, and fewer and fewer to make room for ids.
_BESIDE_IDS = (
    ("time", "outcome", "calls", "why not"),
    ("time", "outcome", "why not"),
    ("outcome", "why not"),
    ("outcome",),
)
#: The widths of these columns; that of the last is the least.
_WIDTHS = {"time": 8, "outcome": 10, "calls": 5, "why not": 16}
_LEAST_ID = 12
#: On a terminal with fewer columns there are only outcome, conversation and job.
_NARROW = 60


@dataclass(frozen=True, slots=True)
class _Row:
    """The cells of an event."""

    time: str
    outcome: str
    style: str
    conversation: str
    calls: str
    job: str
    problem: str


class ResultTable:
    """A table that is drawn within a ``with`` block; its last state stays on the screen."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._note = ""
        self._newest: deque[_Row] = deque(maxlen=200)
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
        """Count an event; the next drawing shows it."""
        self._newest.append(
            _Row(
                result.clock_time,
                _cell(result.outcome),
                result.style,
                _cell(result.conversation_id) or "-",
                str(result.attempts),
                _cell(result.job_id),
                _cell(result.problem),
            )
        )
        self._counts[_cell(result.outcome), result.style] += 1
        self._arrivals.append(time.monotonic())

    def note(self, message: str) -> None:
        """Show a message below the totals."""
        self._note = message

    def draw(self) -> None:
        """Redraw the table."""
        self._live.update(Group(self._totals(), self._table()), refresh=True)

    def _totals(self) -> RenderableType:
        now = time.monotonic()
        while self._arrivals and self._arrivals[0] < now - _RATE_SECONDS:
            self._arrivals.popleft()
        rate = len(self._arrivals) / min(_RATE_SECONDS, max(1.0, now - self._started))
        total = self._counts.total()
        # A line that wrapped would push the newest rows off a small screen.
        lines = Text(f"{self._title}\n", style="dim", no_wrap=True, overflow="ellipsis")
        lines.append(f"{plural(total, 'event')}, {rate:,.1f}/s", style="not dim bold")
        for (outcome, style), count in sorted(self._counts.items(), key=lambda item: -item[1]):
            lines.append(" · ", style="dim")
            lines.append(f"{count:,} {outcome}", style=f"not dim {style}")
        if self._note:
            lines.append(f"\n{self._note}", style="not dim yellow")
        return lines

    def _table(self) -> Table:
        rows = list(self._newest)[-max(1, self._console.height - _OTHER_LINES) :]
        layout = _layout(self._console.width, rows)
        table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
        for name, width in layout.items():
            table.add_column(
                name, width=width, no_wrap=True, overflow="ellipsis", justify="right" if name == "calls" else "left"
            )
        for row in rows:
            cells = {
                "time": Text(row.time),
                "outcome": Text(row.outcome, style=row.style),
                "conversation": Text(row.conversation),
                "calls": Text(row.calls),
                "job": Text(row.job),
                "why not": Text(row.problem),
            }
            table.add_row(*(cells[name] for name in layout))
        return table


def _cell(text: str) -> str:
    return printable(text[:_MAX_CELL])[:_MAX_CELL]


def _layout(columns: int, rows: Sequence[_Row]) -> dict[str, int]:
    """Return the columns of the table with their widths.

    Ids come first: where they would be cut, other columns make room. Where even that is too little, ids are cut.
    """
    conversation = max([_LEAST_ID, *(cell_len(row.conversation) for row in rows)])
    job = max([_LEAST_ID, *(cell_len(row.job) for row in rows)])
    choices = _BESIDE_IDS if columns >= _NARROW else _BESIDE_IDS[-1:]
    rooms = [(names, columns - sum(_WIDTHS[name] for name in names) - _GAP * (len(names) + 2)) for names in choices]
    names, room = next((choice for choice in rooms if conversation + job <= choice[1]), rooms[0])
    job = min(job, max(room - _LEAST_ID, room // 3))
    conversation = min(conversation, max(room - job, _LEAST_ID))
    widths = {**{name: _WIDTHS[name] for name in names}, "conversation": conversation, "job": job}
    if "why not" in names:
        widths["why not"] += max(0, room - job - conversation)
    return {name: widths[name] for name in _ORDER if name in widths}
