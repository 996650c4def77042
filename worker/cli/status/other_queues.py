"""Counts the jobs of the other queues that the workers of a fleet take from, or took from, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.broker.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from worker.runtime.fleet_state import FleetState


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The jobs of a queue by their state, and the workers that take from it."""

    queue: str
    ready: int
    delayed: int
    in_flight: int
    workers: tuple[str, ...]


def read_queues(client: Redis, fleet: Keys, state: FleetState) -> list[QueueCounts]:
    """Count the jobs of all queues of a fleet, that of the state first; the others take a second round trip.

    A key that holds something else counts as empty.
    """
    known: Any = client.zrange(fleet.queues, 0, -1)
    others = sorted({queue.decode(errors="replace") for queue in known} - {fleet.queue})
    first = state.queue
    counts = [(fleet.queue, first.ready, first.delayed + first.due, first.in_flight)]
    if others:
        queues = [*map(Keys, others)]
        with client.pipeline(transaction=False) as look:
            for keys in queues:
                for name in keys.ready:
                    look.llen(name)
                look.zcard(keys.delayed)
                look.zcard(keys.leases)
            answers = [found if isinstance(found, int) else 0 for found in look.execute(raise_on_error=False)]
        each = len(fleet.ready) + 2
        for at, keys in enumerate(queues):
            *ready, delayed, in_flight = answers[at * each : (at + 1) * each]
            counts.append((keys.queue, sum(ready), delayed, in_flight))
    return [QueueCounts(*count, workers=_takers(state, count[0])) for count in counts]


def _takers(state: FleetState, queue: str) -> tuple[str, ...]:
    return tuple(member.name for member in state.members if queue in member.queues)


def in_use(queues: Sequence[QueueCounts]) -> list[QueueCounts]:
    """The queues beside the first one that have jobs, or workers that take from them."""
    return [one for one in queues[1:] if one.workers or one.ready or one.delayed or one.in_flight]
