"""The queues of one worker: the moves, the batches and the maintenance of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from worker.broker.job_moves import JobMoves
from worker.broker.keys import Keys
from worker.broker.maintenance_moves import MaintenanceMoves
from worker.runtime.maintenance import Maintenance, QueueWatch, look_seconds
from worker.runtime.retries import retry_forever
from worker.runtime.settler import QueueBatches

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from worker.broker.broker_options import BrokerOptions
    from worker.broker.client import RedisClient
    from worker.broker.records import Delivery, Recovered
    from worker.runtime.background import Background
    from worker.runtime.clock import ServerClock
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.in_flight import InFlight
    from worker.runtime.maintenance import Fleet
    from worker.runtime.settler import SettlementListener

#: Queues that one worker takes from or looks after at most: each has a connection of its own that waits for messages.
MAX_QUEUES = 50


class FoundJobs(Protocol):
    """What happens to jobs that maintenance found."""

    def end_poisoned(self, delivery: Delivery) -> None:
        """End a job that too many workers died on."""

    def end_expired(self, deliveries: Sequence[Delivery]) -> None:
        """End jobs that are too old."""

    def report_recovered(self, queue: str, recovered: Recovered) -> None:
        """Log that jobs of lost workers are ready again."""


@dataclass(frozen=True, slots=True)
class _Queue:
    moves: JobMoves
    maintenance_moves: MaintenanceMoves
    batches: QueueBatches
    maintenance: Maintenance
    tasks: tuple[asyncio.Task[None], ...]


class Queues:
    """The queues that jobs are taken from, and those of which jobs are still in flight.

    Args:
        client: sends commands to Redis.
        options: the options of the moves; see :meth:`use`.
        in_flight: the jobs in flight.
        clock: the server's clock.
        next_lease_token: makes a lease token.
        fleet: the fleet's flow control.
        jobs: ends jobs that maintenance found.
        settler: hears what Redis answered to a batch.
        on_ready: called with a queue that has jobs to be taken.
        is_consumed: whether jobs are taken from a queue.
        background: runs tasks that no caller waits for.
        controls: what operators asked for.
    """

    def __init__(
        self,
        client: RedisClient,
        options: BrokerOptions,
        *,
        in_flight: InFlight,
        clock: ServerClock,
        next_lease_token: Callable[[], str],
        fleet: Fleet,
        jobs: FoundJobs,
        settler: SettlementListener,
        on_ready: Callable[[str], None],
        is_consumed: Callable[[str], bool],
        background: Background,
        controls: ControlWatch,
    ) -> None:
        self._client = client
        self._options = options
        self._in_flight = in_flight
        self._clock = clock
        self._next_lease_token = next_lease_token
        self._fleet = fleet
        self._jobs = jobs
        self._settler = settler
        self._on_ready = on_ready
        self._is_consumed = is_consumed
        self._background = background
        self._controls = controls
        self._queues: dict[str, _Queue] = {}

    def __contains__(self, queue: str) -> bool:
        return queue in self._queues

    def __len__(self) -> int:
        return len(self._queues)

    def names(self) -> list[str]:
        """Return the names of the queues."""
        return list(self._queues)

    def open(self, queue: str) -> None:
        """Look after a queue from now on: keep its leases, promote what is due, recover what was lost."""
        if queue in self._queues:
            return
        moves = JobMoves(self._client, Keys(queue), self._options)
        maintenance_moves = MaintenanceMoves(self._client, moves.keys, self._options)
        maintenance = Maintenance(
            maintenance_moves, self._in_flight, self._clock,
            next_lease_token=self._next_lease_token, fleet=self._fleet,
            on_ready=partial(self._on_ready, queue),
            on_recovered=partial(self._jobs.report_recovered, queue),
            on_poisoned=self._jobs.end_poisoned, on_expired=self._jobs.end_expired,
            on_lost_take=self.note_lost_take,
            may_hold=lambda: self._controls.version > 0,
        )  # fmt: skip
        tasks = tuple(self._background.spawn(work) for work in (maintenance.renew_leases(), maintenance.run()))
        batches = QueueBatches(moves, self._settler)
        self._queues[queue] = _Queue(moves, maintenance_moves, batches, maintenance, tasks)

    def moves(self, queue: str) -> JobMoves:
        """Return the moves of a queue; one that was left is opened again."""
        return self._opened(queue).moves

    def batches(self, queue: str) -> QueueBatches:
        """Return the batches of a queue; one that was left is opened again."""
        return self._opened(queue).batches

    def note_lost_take(self, queue: str, lease_token: str) -> None:
        """Note a take whose answer was lost: its jobs come back by their leases, and no worker died on them."""
        note = partial(self.moves(queue).note_lost_takes, [lease_token])
        self._background.spawn(retry_forever("lost_takes", note, queue=queue))

    def use(self, options: BrokerOptions) -> None:
        """Use other options for all moves from now on."""
        self._options = options
        for queue in self._queues.values():
            queue.moves.broker_options = queue.maintenance_moves.broker_options = options

    async def watch(self) -> None:
        """Look at all queues at once, for ever, so that idle ones cost little; leave those without jobs."""
        watch = QueueWatch(
            self._client, _Maintenances(self._queues), self._in_flight,
            look_seconds=look_seconds(self._options.lease_ms), is_consumed=self._is_consumed,
            on_ready=self._on_ready, on_left=self._leave,
        )  # fmt: skip
        await watch.run()

    def _opened(self, queue: str) -> _Queue:
        # A job may be settled, or the answer of its take be lost, after its queue was left.
        self.open(queue)
        return self._queues[queue]

    def _leave(self, queue: str) -> None:
        """End the maintenance of a queue that no jobs are taken from any more and that has none in flight."""
        for task in self._queues.pop(queue).tasks:
            task.cancel()


class _Maintenances(Mapping[str, Maintenance]):
    """The maintenance of each queue, as it is at any time."""

    def __init__(self, queues: Mapping[str, _Queue]) -> None:
        self._queues = queues

    def __getitem__(self, queue: str) -> Maintenance:
        return self._queues[queue].maintenance

    def __iter__(self) -> Iterator[str]:
        return iter(self._queues)

    def __len__(self) -> int:
        return len(self._queues)
