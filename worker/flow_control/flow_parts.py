"""The parts of flow control that :class:`~worker.flow_control.gates.Gates` and ``CallObserver`` share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from worker.flow_control.held_jobs import HeldJobs
from worker.flow_control.queue_ends import QueueEnds
from worker.flow_control.retries import RetryShare

if TYPE_CHECKING:
    from worker.flow_control.api_gate import ApiGate
    from worker.flow_control.calls_under_way import CallsUnderWay
    from worker.flow_control.fleet_counts import FleetCounts
    from worker.flow_control.fleet_limit import FleetLimit
    from worker.flow_control.pod_breakers import PodBreakers
    from worker.flow_control.resource_shortage import ResourceShortage
    from worker.flow_control.token_gate import TokenGate


class InFlight(Protocol):
    """The jobs in flight in this worker, as numbers."""

    limit: int
    retries: int

    def __len__(self) -> int: ...

    def free_slots(self) -> int:
        """Return how many more jobs this worker can take now."""


@dataclass(frozen=True)
class FlowParts:
    """The parts of one process's flow control; each has one subject."""

    in_flight: InFlight
    counts: FleetCounts
    calls: CallsUnderWay
    limit: FleetLimit
    token: TokenGate
    api: ApiGate
    breakers: PodBreakers
    shortage: ResourceShortage
    retries: RetryShare = field(default_factory=RetryShare)
    queue_ends: QueueEnds = field(default_factory=QueueEnds)
    held_jobs: HeldJobs = field(default_factory=HeldJobs)
