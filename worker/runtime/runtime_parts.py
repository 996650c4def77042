"""What the asyncio side of a worker is made of, as the composition root (``worker.celery``) puts it together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from worker.runtime.executor import Announcements
from worker.runtime.settler import Reports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tasks.handler import LockConversation
    from worker.broker.broker_options import BrokerOptions
    from worker.broker.client import RedisClient
    from worker.flow_control.gates import Gates
    from worker.runtime.admission import Admission
    from worker.runtime.background import Background
    from worker.runtime.clock import ServerClock
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.in_flight import InFlight
    from worker.runtime.registry import Registry
    from worker.runtime.revokes import Revokes
    from worker.runtime.rule_guard import Guard


class Service(Protocol):
    """Something that runs on the loop beside the jobs."""

    async def start(self) -> None:
        """Start it; called before the first job is taken."""

    async def stop(self) -> None:
        """Stop it; called when no job is in flight any more."""


class CeleryView(Announcements, Reports, Protocol):
    """Shows Celery jobs before and after they run. See :mod:`worker.celery_bridge.monitoring`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeParts:
    """What the asyncio side of a worker is made of.

    Attributes:
        admission: decides on jobs before they run.
        handler: the job's life.
        client: sends commands to Redis.
        broker_options: the options of the moves.
        in_flight: the jobs in flight.
        clock: the server's clock.
        flow: flow control: what holds this worker back, and the fleet.
        name: this worker's name in Redis; new for every process.
        registry: what the workers of the fleet register about themselves.
        controls: what operators asked for.
        revokes: remembers which job ids are revoked through Celery.
        guard: holds the jobs of rules that ask for too much.
        background: runs tasks on the loop that no caller waits for.
        celery: shows Celery the jobs.
        job_queues: returns the queues that Celery was told to consume.
        close_api: closes the API client.
    """

    admission: Admission
    handler: LockConversation
    client: RedisClient
    broker_options: BrokerOptions
    in_flight: InFlight
    clock: ServerClock
    flow: Gates
    name: str
    registry: Registry
    controls: ControlWatch
    revokes: Revokes
    guard: Guard
    background: Background
    celery: CeleryView
    job_queues: Callable[[], Iterable[str]]
    close_api: Callable[[], Awaitable[None]]
