"""Lists dead letters: how many there are by outcome, error type, rule and day, and the newest ones."""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.plural import plural
from worker.broker.connection import sync_client
from worker.cli.dead_letters import pages
from worker.cli.exit import redis_address, redis_or_stop, report_if_interrupted
from worker.cli.folding import folded
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settings import Settings
    from worker.cli.dead_letters import DeadLetter, DeadLetterFilter

#: There may be any number of rules: so many are counted by name, and so many lines of each count are shown.
_MAX_NAMES = 10_000
_LINES = 20
_OTHERS = "(others)"
_NONE = "(none)"


@dataclass(slots=True)
class Summary:
    """The counts of dead letters, and the newest ``last`` of them, the oldest of these first."""

    last: int
    total: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    newest: deque[DeadLetter] = field(init=False)

    def __post_init__(self) -> None:
        self.newest = deque(maxlen=self.last)

    def add(self, letter: DeadLetter) -> None:
        """Count a dead letter."""
        self.total += 1
        for counts, name in (
            (self.outcomes, letter.result.outcome),
            (self.errors, letter.result.error_type),
            (self.rules, letter.result.rule_id),
            (self.days, _day(letter.result.finished_at)),
        ):
            known = name or _NONE
            counts[known if known in counts or len(counts) < _MAX_NAMES else _OTHERS] += 1
        self.newest.append(letter)


def list_letters(settings: Settings, chosen: DeadLetterFilter, *, last: int, as_json: bool) -> None:
    """Show the summary of the selected dead letters."""
    summary = Summary(last)
    with report_if_interrupted(lambda: "nothing was changed"), redis_or_stop(settings), sync_client(settings) as client:
        for letters in pages(client, settings.DEAD_STREAM, chosen):
            for letter in letters:
                summary.add(letter)
        text = _json(summary) if as_json else "\n".join(_lines(summary, settings))
        sys.stdout.write(f"{text}\n")


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter without its message as JSON values."""
    return {
        "entry": letter.entry,
        "job_id": letter.result.job_id,
        "conversation_id": letter.result.job_conversation_id or letter.result.conversation_id or None,
        "rule_id": letter.result.rule_id or None,
        "queue": letter.queue,
        "outcome": letter.result.outcome,
        "error": letter.result.error_type or None,
        "time": letter.result.finished_at,
        "event": json.loads(letter.result.text),
    }


def _json(summary: Summary) -> str:
    told = {
        "total": summary.total,
        "by_outcome": dict(summary.outcomes.most_common()),
        "by_error": dict(summary.errors.most_common()),
        "by_rule": dict(summary.rules.most_common()),
        "by_day": dict(sorted(summary.days.items())),
        "newest": [letter_json(letter) for letter in reversed(summary.newest)],
    }
    return printable(json.dumps(told, ensure_ascii=False))


def _lines(summary: Summary, settings: Settings) -> Iterator[str]:
    yield f"{plural(summary.total, 'dead letter')} in {settings.DEAD_STREAM} at {redis_address(settings)}"
    counts = (
        ("By outcome", summary.outcomes.most_common()),
        ("By error", summary.errors.most_common()),
        ("By rule", summary.rules.most_common()),
        ("By day", sorted(summary.days.items(), reverse=True)),
    )
    for title, rows in counts if summary.total else ():
        yield ""
        yield f"{title}:"
        for name, count in rows[:_LINES]:
            yield f"  {count:>9,}  {printable(name)}"
        if len(rows) > _LINES:
            yield f"             and {len(rows) - _LINES:,} more"
    if summary.newest:
        yield ""
        yield "The newest:"
        for letter in reversed(summary.newest):
            yield folded(f"  {letter.entry}  {letter.result.as_dated_line()}", 6)


def _day(finished_at: str) -> str:
    """Return the day on which a job ended, in the local time zone."""
    try:
        return datetime.fromisoformat(finished_at).astimezone().strftime("%Y-%m-%d")
    except (ValueError, OverflowError):
        return ""
