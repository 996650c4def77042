"""The conservation law of a queue: each job that was taken ended, or is in one of the places where a job can be.

What counts what is decided by the moves in ``worker/broker/lua``. ``take`` counts each new job once as ``taken``,
however often it is taken again later. ``complete`` counts a job once as ``finished`` and under its outcome, or as
``deduplicated``. ``take`` and ``recover`` count a ref whose record is gone as ``vanished``. All other moves only take a
job from one place to another. ``lock-worker adopt`` counts the jobs that it moves over to their new queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.cli.audit.snapshot import Snapshot

_OUTCOME = "outcome:"
#: The counter of the vanished jobs that an operator has acknowledged.
ACKNOWLEDGED = "vanished_acknowledged"
#: What each term of the sum counts, in the order in which they are shown.
MEANINGS = {
    "finished": "ended with an event",
    "duplicates_dropped": "copies of jobs that have their event",
    "vanished": "their record was deleted, so they have no event",
    "in_flight": "workers have them",
    "delayed": "wait for their time, or for their next call",
    "due": "their time has come; a worker makes them ready",
    "requeued": "ready again",
    "retries": "ready again after a call that failed",
    "suspects": "ready to be run alone: workers died on them",
    "held": "set aside by a hold, until its release",
}


@dataclass(frozen=True, slots=True)
class Breach:
    """Something that does not add up.

    Attributes:
        code: a stable name, for programs.
        text: what it is, in one sentence.
        meaning: what it means, and what to do.
    """

    code: str
    text: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Law:
    """The sum of one queue.

    Attributes:
        queue: its name.
        taken: the jobs that workers took, each once.
        terms: what became of them, by the names in ``MEANINGS``.
        outcomes: those that finished, by outcome.
        ready: messages that were not taken yet, which are not in the sum.
        acknowledged: so many vanished jobs an operator has acknowledged.
    """

    queue: str
    taken: int
    terms: Mapping[str, int]
    outcomes: Mapping[str, int]
    ready: int
    acknowledged: int

    @property
    def sum(self) -> int:
        """All terms together."""
        return sum(self.terms.values())

    @property
    def missing(self) -> int:
        """Jobs that were taken and are in no term; negative: there are more than were taken."""
        return self.taken - self.sum


def law_of(snapshot: Snapshot) -> Law:
    """Add a queue up."""
    state = snapshot.state
    totals = state.totals
    places = {
        "in_flight": state.in_flight,
        "delayed": state.delayed,
        "due": state.due,
        "requeued": state.requeued,
        "retries": state.retries,
        "suspects": state.suspects,
        "held": snapshot.held,
    }
    return Law(
        queue=snapshot.keys.queue,
        taken=totals.get("taken", 0),
        terms={
            "finished": totals.get("finished", 0),
            "duplicates_dropped": totals.get("deduplicated", 0),
            "vanished": totals.get("vanished", 0),
            **places,
        },
        outcomes={
            name.removeprefix(_OUTCOME): count for name, count in totals.items() if name.startswith(_OUTCOME) and count
        },
        ready=sum(state.priorities.values()) + state.arrived,
        acknowledged=totals.get(ACKNOWLEDGED, 0),
    )


def breaches(law: Law, snapshot: Snapshot) -> Iterator[Breach]:
    """Yield what does not add up; nothing: the law holds, and no job ended without an event."""
    counters = printable(snapshot.keys.counters)
    for key, kind in snapshot.wrong_keys.items():
        yield Breach(
            "key_overwritten",
            f"The key {printable(key)} holds a {kind} that lock-worker did not write.",
            "What was there cannot be counted. Find out who wrote it, and rename or delete the key.",
        )
    if law.missing > 0:
        yield Breach(
            "missing",
            f"{plural(law.missing, 'job')} of {law.taken:,} that were taken neither ended nor are anywhere.",
            f"Somebody deleted a list or an index of this queue, or changed its counters ({counters}). Jobs that were "
            "there have no event: send them again, which is harmless.",
        )
    if law.missing < 0:
        yield Breach(
            "too_many",
            f"{plural(-law.missing, 'job')} more ended or are somewhere than were taken.",
            f"Somebody deleted or changed the counters of this queue ({counters}), or restored a part of its keys. No "
            "job needs to be lost, but this sum cannot tell.",
        )
    new = law.terms["vanished"] - law.acknowledged
    if new > 0:
        since = "an operator last acknowledged that" if law.acknowledged else "the queue was first used"
        yield Breach(
            "vanished",
            f"The records of {plural(new, 'job')} were deleted since {since}.",
            "Each is a job without an event. Somebody deleted keys, or Redis did: its maxmemory-policy has to be "
            "noeviction. Send those jobs again, which is harmless, and then acknowledge them: lock-worker audit "
            "--acknowledge --reason ...",
        )
    by_outcome = sum(law.outcomes.values())
    if by_outcome != law.terms["finished"]:
        yield Breach(
            "outcomes",
            f"{law.terms['finished']:,} jobs finished, and their outcomes add up to {by_outcome:,}.",
            f"Somebody changed the counters of this queue ({counters}).",
        )
