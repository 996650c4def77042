"""Reads the workers of a fleet and the counts of its queues, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.broker.keys import Keys
from worker.runtime.registry import Member, differences, read_members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from settings import Settings


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The jobs of a queue by their state, and the workers that take from it."""

    queue: str
    ready: int
    delayed: int
    in_flight: int
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers, and the queues that they took from, LOCK_QUEUE first."""

    members: Sequence[Member]
    queues: Sequence[QueueCounts]

    @property
    def differences(self) -> dict[str, dict[Any, list[str]]]:
        """The settings in which the workers differ: each value with the names of its workers."""
        return differences(self.members)


def read_fleet(client: Redis, settings: Settings) -> Fleet:
    """Read the fleet of LOCK_QUEUE."""
    fleet = Keys(settings.LOCK_QUEUE)
    known: Any = client.zrange(fleet.queues, 0, -1)
    others = sorted({queue.decode(errors="replace") for queue in known} - {fleet.queue})
    queues = [fleet, *map(Keys, others)]
    with client.pipeline(transaction=False) as look:
        look.time()
        look.hgetall(fleet.workers)
        for keys in queues:
            for name in keys.ready:
                look.llen(name)
            look.zcard(keys.delayed)
            look.zcard(keys.leases)
        (seconds, microseconds), workers, *answers = look.execute()
    members = sorted(read_members(workers, seconds * 1000 + microseconds / 1000), key=lambda member: member.node)
    each = len(fleet.ready) + 2
    counts = []
    for at, keys in enumerate(queues):
        *ready, delayed, in_flight = answers[at * each : (at + 1) * each]
        nodes = tuple(member.node for member in members if keys.queue in member.queues)
        counts.append(QueueCounts(keys.queue, sum(ready), delayed, in_flight, nodes))
    return Fleet(members, counts)
