"""What runs on the asyncio loop of a worker: it wires the parts, feeds taken jobs to the executor, and shuts down."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import RedisError

from worker.runtime.background import Background
from worker.runtime.executor import Announcements, Executor
from worker.runtime.fetcher import Fetcher
from worker.runtime.fleet import Fleet
from worker.runtime.queues import MAX_QUEUES, Queues
from worker.runtime.settler import Reports, Settler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from queue import SimpleQueue

    from tasks.handler import LockConversation
    from worker.broker.broker_options import BrokerOptions
    from worker.broker.client import RedisClient
    from worker.broker.job_moves import JobMoves
    from worker.flow_control.gates import Gates
    from worker.runtime.admission import Admission
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import InFlight
    from worker.runtime.registry import Registry
    from worker.runtime.settler import QueueBatches

logger = logging.getLogger(__name__)

#: The share of the shutdown time kept for releasing jobs, and its bound in seconds.
_RELEASE_SHARE = 0.2
_MAX_RELEASE_SECONDS = 3.0
#: How often a shutdown looks whether all jobs are settled.
_POLL_SECONDS = 0.01
#: How long a cancelled queue waits at most for the confirmation that nothing more is taken.
CANCEL_SECONDS = 1.0
_AFTER_AN_ERROR_SECONDS = 0.5


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
    """What a worker is made of.

    Attributes:
        admission: decides on jobs before they run.
        handler: the job's life.
        client: sends commands to Redis.
        broker_options: the options of the moves.
        in_flight: the jobs in flight.
        clock: the server's clock.
        flow: flow control: what holds this worker back, and the fleet.
        name: this worker's name in Redis; new for every process.
        registry: what the workers of the fleet tell of themselves.
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
    celery: CeleryView
    job_queues: Callable[[], Iterable[str]]
    close_api: Callable[[], Awaitable[None]]


class WorkerLoop:
    """One worker's life on the loop. All methods are for the loop, but for :meth:`next_lease_token`.

    ``services`` may be added to until the start.
    """

    def __init__(self, parts: RuntimeParts, stop_loop: Callable[[], None]) -> None:
        self.services: list[Service] = []
        self._parts = parts
        self._stop_loop = stop_loop
        self._lease_numbers = count(1)
        self._background = Background()
        self.fetcher = Fetcher(
            name=parts.name, moves=self._moves, in_flight=parts.in_flight, clock=parts.clock, gates=parts.flow,
            next_lease_token=self.next_lease_token,
            on_lost_take=self._note_lost_take,
            claim_of=parts.admission.claim_of,
        )  # fmt: skip
        settler = Settler(
            batches=self._batches, in_flight=parts.in_flight, clock=parts.clock, gates=parts.flow,
            gates_changed=self.fetcher.gates_changed, slots_freed=self.fetcher.slots_freed, reports=parts.celery,
        )  # fmt: skip
        self.executor = Executor(
            admission=parts.admission, handler=parts.handler, moves=self._moves, in_flight=parts.in_flight,
            clock=parts.clock, settler=settler, celery=parts.celery, background=self._background,
        )  # fmt: skip
        self.queues = Queues(
            parts.client, parts.broker_options,
            in_flight=parts.in_flight, clock=parts.clock, next_lease_token=self.next_lease_token, fleet=parts.flow,
            jobs=self.executor, settler=settler, on_ready=self.fetcher.check_queues,
            is_consumed=self.fetcher.consumes, background=self._background,
        )  # fmt: skip
        self.fleet = Fleet(
            parts.client, parts.broker_options,
            name=parts.name, flow=parts.flow, registry=parts.registry, consumed=lambda: self.fetcher.queues,
            use=self.queues.use, background=self._background,
        )  # fmt: skip
        self._fetching: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._release_at = self._end_at = math.inf
        self._celery_is_done = asyncio.Event()

    def next_lease_token(self) -> str:
        """Return a lease token that no other take has, of this or of any other worker."""
        return f"{self._parts.name}.{next(self._lease_numbers)}"

    async def begin(self) -> None:
        """Look after the queues that Celery was told to consume, join the fleet, and start the services."""
        for queue in self._parts.job_queues():
            self.queues.open(queue)
        work = (self.fleet.report_breakers(), self.queues.watch(), self.fleet.stay_registered())
        for each in work:
            self._background.spawn(each)
        for service in self.services:
            await service.start()

    def consume(self, queue: str) -> None:
        """Take jobs from a queue, and look after it."""
        if queue not in self.queues and len(self.queues) >= MAX_QUEUES:  # many were asked for at once
            logger.error("queue_refused", extra={"queue": queue, "queues": len(self.queues)})
            return
        self.queues.open(queue)
        self.fetcher.consume(queue)
        self.fleet.queues_changed()
        if self._fetching is None:
            self._fetching = self._background.spawn(self._fetch())

    def cancel(self, queue: str, done: SimpleQueue[None]) -> None:
        """Take no more jobs from a queue; put something into ``done`` when that is so."""
        self.fetcher.cancel(queue)
        self.fleet.queues_changed()
        self._background.spawn(self._confirm_cancel(done))

    def restore_attempts(self, jobs: Mapping[tuple[str, str], int]) -> None:
        """Give attempts back that an outage cost jobs which wait in Redis, by queue and ref."""
        for queue in self.queues.names():
            waiting = [(ref, attempts) for (where, ref), attempts in jobs.items() if where == queue]
            if waiting:
                self.fleet.restore_attempts(self._moves(queue), waiting)

    def shut_down(self, seconds: float) -> None:
        """Begin to shut down, or hurry up: of several calls the one that allows least time counts."""
        end_at = time.monotonic() + seconds
        self._end_at = min(self._end_at, end_at)
        self._release_at = min(self._release_at, end_at - min(_MAX_RELEASE_SECONDS, seconds * _RELEASE_SHARE))
        if self._draining is None:
            self._draining = self._background.spawn(self._drain())

    def celery_is_done(self) -> None:
        """Let the shutdown end: Celery wants nothing more."""
        self._celery_is_done.set()

    async def _fetch(self) -> None:
        """Take jobs, and give them to the executor, until the shutdown."""
        await self.fleet.register()  # so that the first job is treated as the whole fleet would
        try:
            while not self._parts.in_flight.is_closed:
                try:
                    await self._fetch_once()
                except Exception:  # an error of ours must not end the taking of jobs
                    logger.exception("take_error")
                    await asyncio.sleep(_AFTER_AN_ERROR_SECONDS)
        finally:
            self.fetcher.stop_waiting()

    async def _fetch_once(self) -> None:
        batch = await self.fetcher.fetch()
        if batch is None:
            return
        if batch.is_late:
            self.executor.release(batch.deliveries)
        else:
            self.executor.receive(batch.deliveries)

    async def _confirm_cancel(self, done: SimpleQueue[None]) -> None:
        """Confirm when no message can be taken any more by what was under way, or when that cannot be known in time."""
        try:
            # A server that is away moves no message; others log that it is away.
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    await self.fetcher.has_let_go()
                    # Until the server has read that a connection is closed, a message may still wake the wait on it. It
                    # reads that before it answers what is sent later.
                    await self._parts.client.execute_command("PING")
        finally:
            done.put(None)

    async def _drain(self) -> None:
        """Wait until no job is in flight, close what is open, and end the loop, whatever goes wrong."""
        in_flight = self._parts.in_flight
        try:
            while self._has_work():
                if self._fetching is not None and not self.fetcher.is_fetching:
                    self._fetching.cancel()
                if time.monotonic() >= self._release_at:
                    self.executor.cancel_all()
                await asyncio.sleep(_POLL_SECONDS)
            if len(in_flight):
                logger.warning("jobs_left_to_their_leases", extra={"jobs": len(in_flight)})
            await self._close()
        finally:
            self._stop_loop()

    async def _close(self) -> None:
        await self._background.cancel()
        await self.fleet.leave()
        for service in self.services:
            await service.stop()
        await self._parts.close_api()
        await self._parts.client.disconnect()

    def _has_work(self) -> bool:
        """Return whether Celery may still want something, or jobs are in flight or being taken and time is left."""
        if not self._celery_is_done.is_set():
            return True
        is_fetching = self._fetching is not None and not self._fetching.done()
        return (is_fetching or len(self._parts.in_flight) > 0) and time.monotonic() < self._end_at

    def _moves(self, queue: str) -> JobMoves:
        return self.queues.moves(queue)

    def _batches(self, queue: str) -> QueueBatches:
        return self.queues.batches(queue)

    def _note_lost_take(self, queue: str, lease_token: str) -> None:
        self.queues.note_lost_take(queue, lease_token)
