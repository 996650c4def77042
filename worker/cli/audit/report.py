"""What an audit found, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tasks.plural import plural
from worker.cli.audit.law import MEANINGS, Breach, breaches, law_of
from worker.cli.folding import folded
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.cli.audit.law import Law
    from worker.cli.audit.records import Records
    from worker.cli.audit.snapshot import Snapshot

_REFS_SHOWN = 5
_REFS_IN_JSON = 100


@dataclass(frozen=True, slots=True)
class Audited:
    """One queue.

    Attributes:
        law: its sum.
        records: what was found of its records; None: they were not looked at.
        server_ms: the moment of the sum.
        breaches: what does not add up.
    """

    law: Law
    records: Records | None
    server_ms: int
    breaches: tuple[Breach, ...]


def audited(snapshot: Snapshot, records: Records | None) -> Audited:
    """Judge a queue."""
    law = law_of(snapshot)
    found = [*breaches(law, snapshot), *_without_records(records)]
    return Audited(law, records, snapshot.state.server_ms, tuple(found))


def _without_records(records: Records | None) -> Iterator[Breach]:
    if records is not None and records.missing:
        shown = ", ".join(map(printable, records.missing[:_REFS_SHOWN]))
        yield Breach(
            "without_record",
            f"{plural(len(records.missing), 'job')} of those that did not end have no record: {shown}"
            f"{', ...' if len(records.missing) > _REFS_SHOWN else ''}.",
            "Somebody deleted or overwrote it. Such a job has no event; when its turn comes it is counted as vanished.",
        )


def lines(found: Audited) -> Iterator[str]:
    """Describe a queue to people."""
    law = found.law
    yield printable(f"Queue {law.queue} at {_time(found.server_ms)}")
    yield ""
    yield _line("  taken", law.taken, "from the producers' lists, each job once")
    for at, (name, meaning) in enumerate(MEANINGS.items()):
        yield _line(f"{'+' if at else '='} {name.replace('_', ' ')}", law.terms[name], meaning)
        if name == "vanished" and law.acknowledged:
            yield _line("    acknowledged", law.acknowledged, "by an operator; see CONTROL_STREAM")
        if name == "finished":
            for outcome, count in law.outcomes.items():
                yield _line(f"    {printable(outcome)}", count)
    yield _line("  sum", law.sum, "" if law.sum == law.taken else f"and {law.taken:,} were taken")
    yield ""
    if law.ready:
        yield f"Beside it {plural(law.ready, 'message')} that no worker has taken yet."
    if found.records is None:
        yield "The records of the jobs were not looked at; --deep does."
    else:
        yield f"The records of {plural(found.records.checked, 'job')} that did not end were looked at."
    if not found.breaches:
        yield "It adds up: each job taken has ended with an event, or is where it has to be."
    for breach in found.breaches:
        yield folded(f"NOT RIGHT: {breach.text}", 2)
        yield folded(f"  -> {breach.meaning}", 5)


def as_json(found: Audited) -> dict[str, Any]:
    """Describe a queue to programs."""
    law, records = found.law, found.records
    return {
        "queue": law.queue,
        "ok": not found.breaches,
        "time": _time(found.server_ms),
        "taken": law.taken,
        "terms": dict(law.terms),
        "outcomes": dict(law.outcomes),
        "sum": law.sum,
        "missing": law.missing,
        "ready": law.ready,
        "acknowledged": law.acknowledged,
        "records": None
        if records is None
        else {
            "checked": records.checked,
            "missing": len(records.missing),
            "refs": records.missing[:_REFS_IN_JSON],
        },
        "problems": [{"code": each.code, "text": each.text, "advice": each.meaning} for each in found.breaches],
    }


def _line(name: str, count: int, note: str = "") -> str:
    return folded(f"{name:<22}{count:>12,}  {note}".rstrip(), 36)


def _time(server_ms: int) -> str:
    return datetime.fromtimestamp(server_ms / 1000, UTC).isoformat(timespec="milliseconds")
