"""Gathers what ``lock-worker status`` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.broker.keys import Keys
from worker.cli.status.notes import notes
from worker.cli.status.other_queues import QueueCounts, read_queues
from worker.cli.status.stream_stats import StreamStats, stream_stats
from worker.cli.status.verdict import problems
from worker.runtime.fleet_state import FleetNames, FleetState, read_fleet_state_now

if TYPE_CHECKING:
    from redis import Redis

    from settings import Settings
    from worker.cli.status.condition import Problem, StatusNote


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a fleet, and what follows from it.

    Attributes:
        settings: of this process.
        state: the state.
        queues: the queues of the fleet, that of the state first.
        streams: the results stream and the dead stream.
        problems: what is wrong, the worst first.
        notes: what is set on purpose and should be known.
    """

    settings: Settings
    state: FleetState
    queues: list[QueueCounts]
    streams: tuple[StreamStats, StreamStats]
    problems: list[Problem]
    notes: list[StatusNote]

    @property
    def last_maintenance_seconds(self) -> float | None:
        """How long ago a worker looked after the queue, which every worker does all the time; None: never."""
        at_ms = self.state.queue.maintained_ms
        return None if at_ms is None else (self.state.queue.server_ms - at_ms) / 1000


def read_report(client: Redis, settings: Settings) -> Report:
    """Read the state of the fleet that the settings name. It changes nothing.

    Raises:
        RedisError: the server refused, was lost, or took too long.
    """
    names = FleetNames.of(settings)
    state = read_fleet_state_now(client, names)
    return Report(
        settings,
        state,
        read_queues(client, Keys(settings.LOCK_QUEUE), state),
        stream_stats(state, settings),
        problems(state, settings),
        notes(state),
    )
