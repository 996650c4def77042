"""Reads what an audit adds up: all of it at one moment, so that no job that moves is missed or counted twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.broker.keys import Keys
from worker.broker.state import parse_state, state_command

if TYPE_CHECKING:
    from redis import Redis

    from worker.broker.state import State


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A queue at one moment.

    Attributes:
        keys: the queue's keys.
        state: its state.
        held: jobs that an operator's hold set aside.
        wrong_keys: keys that hold another type than the worker keeps there, with what is there.
    """

    keys: Keys
    state: State
    held: int
    wrong_keys: dict[str, str]

    @property
    def kept(self) -> int:
        """Jobs that were taken and did not end: each has a record."""
        state = self.state
        return state.in_flight + state.waiting + state.requeued + state.retries + state.suspects + self.held


def read_snapshot(client: Redis, keys: Keys, fleet: Keys) -> Snapshot:
    """Read a queue of a fleet. It changes nothing.

    Raises:
        RedisError: the server refused, was lost, or took too long.
    """
    answer: Any  # redis-py has no types for this
    answer = client.execute_command(*state_command(keys, fleet, whole_text=True))  # type: ignore[no-untyped-call]
    state = parse_state(answer)
    return Snapshot(keys, state, state.held, dict(state.wrong_keys))


def queues_of(client: Redis, fleet: Keys) -> list[Keys]:
    """Return the queues that workers of a fleet take or took from, that of the fleet first.

    Raises:
        RedisError: the server refused, was lost, or took too long.
    """
    known: Any = client.zrange(fleet.queues, 0, -1)
    others = sorted({queue.decode(errors="replace") for queue in known} - {fleet.queue})
    return [fleet, *map(Keys, others)]
