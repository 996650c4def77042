"""The state of a fleet at one moment: its queue, its workers, its flow control, its streams and the server's memory.

One round trip reads it, for ``lock-worker status``, for the metrics of every pod and for ``lock-worker exporter``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from worker.broker.keys import Keys
from worker.broker.state import parse_state, sample_command, state_command
from worker.broker.streams import parse_streams, stream_commands
from worker.flow_control.limit import from_json
from worker.message.controls import read_controls
from worker.runtime.members import differences, read_members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis import Redis

    from settings import Settings
    from worker.broker.follow_up import Pipe
    from worker.broker.script_calls import Command
    from worker.broker.state import State
    from worker.broker.streams import Memory, Stream
    from worker.message.controls import Control, Controls
    from worker.runtime.members import Member

#: Permits of the rate limit that are given until so long ago at least mean that jobs wait for permits.
_BOUND_MS = 100
#: If more of the fleet's slots than this share are in use, the slots are what jobs wait for.
_SLOTS_IN_USE = 0.95


@dataclass(frozen=True, slots=True)
class FleetNames:
    """What a fleet's state is read from: the queue, LOCK_QUEUE, and the two streams."""

    queue: str
    results: str
    dead: str

    @classmethod
    def of(cls, settings: Settings) -> FleetNames:
        """Return the names that the settings give."""
        return cls(settings.LOCK_QUEUE, settings.RESULTS_CHANNEL, settings.DEAD_STREAM)


@dataclass(frozen=True, slots=True)
class FleetLimit:
    """The fleet's rate limit that follows from refusals of the API.

    Attributes:
        rate: calls a second.
        by: the worker that was refused; empty: unknown.
        status: the HTTP status of the refusal; 0: unknown.
    """

    rate: float
    by: str
    status: int


@dataclass(frozen=True, slots=True)
class FleetState:
    """A fleet at one moment.

    Attributes:
        queue: its queue and its flow control.
        members: the workers that registered in the last half minute.
        results: the results stream.
        dead: the dead letters.
        memory: the server's memory.
    """

    queue: State
    members: tuple[Member, ...]
    results: Stream
    dead: Stream
    memory: Memory

    @property
    def server_seconds(self) -> float:
        """The server's time, in seconds since 1970."""
        return self.queue.server_ms / 1000

    @property
    def oldest_ready_seconds(self) -> float | None:
        """The longest that a new ready job can have waited; None: there is none, or it is unknown."""
        since = self.queue.oldest_ready_ms
        return None if since is None else max(0.0, (self.queue.server_ms - since) / 1000)

    @property
    def results_oldest_seconds(self) -> float | None:
        """The age of the oldest event in the results stream; None: it is empty."""
        first = self.results.first
        return None if first is None else max(0.0, (self.queue.server_ms - first[0]) / 1000)

    @property
    def limit(self) -> FleetLimit | None:
        """The rate limit that follows from the API's refusals."""
        if not self.queue.rate:
            return None
        limit = from_json(self.queue.rate_state)
        return FleetLimit(self.queue.rate, limit.by, limit.status)

    @property
    def controls(self) -> Controls:
        """What operators asked for."""
        return read_controls(self.queue.controls)

    @property
    def holds(self) -> list[Control]:
        """The holds that are in force."""
        return [
            control
            for control in self.controls.controls
            if control.kind == "hold" and control.note.is_in_force(self.queue.server_ms)
        ]

    @property
    def slots(self) -> int:
        """The jobs that all workers together run at once."""
        return sum(member.activity.slots for member in self.members)

    @property
    def settings_differ(self) -> Mapping[str, Mapping[Any, list[str]]]:
        """The settings in which workers differ: each value with the names of those that have it."""
        return differences(self.members)

    def members_with_open(self, reason: str) -> list[Member]:
        """The workers of which the breaker with this reason is open."""
        return [
            member for member in self.members if any(breaker.reason == reason for breaker in member.activity.breakers)
        ]

    @property
    def calls(self) -> tuple[int, int]:
        """The calls of the fleet in the last half minute, and how many of them failed, as one of the workers tells."""
        return max(((member.activity.calls, member.activity.failed_calls) for member in self.members), default=(0, 0))

    @property
    def is_held_back(self) -> bool:
        """True while no worker takes jobs freely: the fleet pauses, or each worker has an open breaker."""
        return max(self.queue.paused_ms, self.queue.operators_pause_ms) > 0 or (
            bool(self.members) and all(member.activity.breakers for member in self.members)
        )

    @property
    def is_rate_bound(self) -> bool:
        """True if jobs wait for permits of a rate limit, and not for slots."""
        until_ms = self.queue.permits_until_us / 1000
        return (
            until_ms > self.queue.server_ms - _BOUND_MS
            and self.queue.in_flight < self.slots * _SLOTS_IN_USE
            and self.queue.ready > 0
        )

    @property
    def workable(self) -> int:
        """Jobs that more workers could do now: all that are ready or due, or 0 while they do not wait for workers."""
        return 0 if self.is_held_back or self.is_rate_bound else self.queue.ready + self.queue.due


async def read_fleet_state(pipe: Pipe, names: FleetNames) -> FleetState:
    """Read the state from an asyncio loop, in one round trip, and keep a sample of the totals if it is time for one.

    Raises:
        RedisError: the server refused, was lost, or took too long.
        OSError: the connection was lost.
    """
    for whole_text in (False, True):
        commands = [sample_command(Keys(names.queue), whole_text=whole_text), *_commands(names, whole_text=whole_text)]
        found = await _answers(pipe, commands)
        if not any(isinstance(answer, NoScriptError) for answer in found[:2]):
            break
    return _state(found[1:])  # without permission to keep samples the state is known all the same


def read_fleet_state_now(client: Redis, names: FleetNames) -> FleetState:
    """Read the state with a blocking client. It changes nothing.

    Raises:
        RedisError: the server refused, was lost, or took too long.
    """
    client.ping()  # a server that wants a password hangs up on a long command instead of saying so
    pipeline: Any  # redis-py has no types for this
    for whole_text in (False, True):
        with client.pipeline(transaction=False) as pipeline:
            for command in _commands(names, whole_text=whole_text):
                pipeline.execute_command(*command)
            found = pipeline.execute(raise_on_error=False)
        if not isinstance(found[0], NoScriptError):
            break
    return _state(found)


async def _answers(pipe: Pipe, commands: Sequence[Command]) -> list[Any]:
    """Send the commands in one write; return the answers, with refusals in their places."""
    answers, found = await pipe.send(*commands), []
    try:
        for _ in commands:
            try:
                found.append(await answers.next())
            except ResponseError as refusal:
                found.append(refusal)
    finally:
        await answers.close()
    return found


def _commands(names: FleetNames, *, whole_text: bool) -> list[Command]:
    keys = Keys(names.queue)
    streams = stream_commands([names.results, names.dead])
    return [state_command(keys, keys, whole_text=whole_text), *streams]


def _state(answers: Sequence[Any]) -> FleetState:
    first, *rest = answers
    if isinstance(first, RedisError):
        raise first
    (results, dead), memory = parse_streams(rest)
    queue = parse_state(first)
    members = read_members(queue.workers, queue.server_ms)
    return FleetState(queue, tuple(members), results, dead, memory)
