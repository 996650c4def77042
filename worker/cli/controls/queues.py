"""The queues of a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.broker.keys import Keys
from worker.runtime.members import read_members

if TYPE_CHECKING:
    from redis import Redis


def fleet_queues(client: Redis, fleet: Keys) -> list[Keys]:
    """Return the keys of all queues that workers of a fleet take from, or took from; LOCK_QUEUE is the first."""
    known: Any = client.zrange(fleet.queues, 0, -1)
    workers: Any = client.hgetall(fleet.workers)
    names = {queue.decode(errors="replace") for queue in known}
    for member in read_members(workers, client.time()[0] * 1000):
        names.update(member.queues)
    return [fleet, *(Keys(queue) for queue in sorted(names - {fleet.queue}))]
