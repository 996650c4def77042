"""Reads what operators ask of a fleet, and counts the jobs that are held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.broker.keys import Keys
from worker.cli.controls.queues import fleet_queues
from worker.message.controls import read_controls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from settings import Settings
    from worker.message.controls import Control, Note

#: Counts asked for in one round trip.
_COUNTS = 1000


@dataclass(frozen=True, slots=True)
class Holds:
    """What is in force in a fleet.

    Attributes:
        holds: each hold with the jobs that it has set aside.
        cancels: cancels that are also for jobs to come.
        pause: the note of an operator's pause; None: there is none.
        going_on: jobs whose hold is ended, and that workers make ready in a moment.
    """

    holds: tuple[tuple[Control, int], ...]
    cancels: tuple[Control, ...]
    pause: Note | None
    going_on: int


def read_holds(client: Redis, settings: Settings) -> Holds:
    """Read the state. It changes nothing.

    Raises:
        RedisError: the server refused, was lost, or took too long.
    """
    fleet = Keys(settings.LOCK_QUEUE)
    seconds, microseconds = client.time()
    now_ms = seconds * 1000 + microseconds / 1000
    fields: Any = client.hgetall(fleet.controls)
    found = read_controls(fields)
    in_force = [control for control in found.controls if control.note.is_in_force(now_ms)]
    holds = [control for control in in_force if control.kind == "hold"]
    total, counts = _count(client, fleet_queues(client, fleet), holds)
    return Holds(
        tuple(zip(holds, counts, strict=True)),
        tuple(control for control in in_force if control.kind == "cancel"),
        found.pause if found.pause is not None and found.pause.is_in_force(now_ms) else None,
        max(0, total - sum(counts)),
    )


def _count(client: Redis, queues: Sequence[Keys], holds: Sequence[Control]) -> tuple[int, list[int]]:
    """Return how many jobs are held at all, and for each hold."""
    with client.pipeline(transaction=False) as look:
        for keys in queues:
            look.zcard(keys.held)
        sizes = look.execute()
    counts = [0] * len(holds)
    for keys in (keys for keys, size in zip(queues, sizes, strict=True) if size):
        for first in range(0, len(holds), _COUNTS):
            with client.pipeline(transaction=False) as look:
                for hold in holds[first : first + _COUNTS]:
                    digest = hold.selector.digest
                    look.zlexcount(keys.held, f"[{digest}:", f"({digest};")  # ';' comes behind ':'
                for at, count in enumerate(look.execute(), first):
                    counts[at] += count
    return sum(sizes), counts
