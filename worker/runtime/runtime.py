"""The asyncio side of a worker: what Celery's thread may ask of it, and its life from start to shutdown.

One loop in one thread takes jobs, runs them, settles them and keeps their leases. Celery's thread calls the methods of
:class:`Runtime`; everything they start runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import RedisError

from worker.runtime.background import Background
from worker.runtime.executor import Announcements, Executor
from worker.runtime.fetcher import Fetcher
from worker.runtime.fleet import Fleet
from worker.runtime.loop_thread import LoopThread
from worker.runtime.queues import MAX_QUEUES, Queues
from worker.runtime.settler import Reports, Settler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from tasks.handler import LockConversation
    from worker.broker.client import RedisClient
    from worker.broker.moves import BrokerOptions, Moves
    from worker.broker.records import Delivery
    from worker.flow_control.flow_control import FlowControl
    from worker.runtime.admission import Admission
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import Assignment, InFlight
    from worker.runtime.registry import Registry
    from worker.runtime.settler import QueueBatches

logger = logging.getLogger(__name__)

#: The share of the shutdown time kept for releasing jobs, and its bound in seconds.
_RELEASE_SHARE = 0.2
_MAX_RELEASE_SECONDS = 3.0
#: How often a shutdown looks whether all jobs are settled.
_POLL_SECONDS = 0.01
#: How long :meth:`Runtime.cancel` waits at most for the confirmation that nothing more is taken.
_CANCEL_SECONDS = 1.0
#: How long the loop may take at most to close what is open, once no job is in flight.
_CLOSE_SECONDS = 5.0
_AFTER_AN_ERROR_SECONDS = 0.5


class Service(Protocol):
    """Something that runs on the loop beside the jobs."""

    async def start(self) -> None:
        """Start it; called before the first job is taken."""

    async def stop(self) -> None:
        """Stop it; called when no job is in flight any more."""


class CeleryView(Announcements, Reports, Protocol):
    """What Celery is told of jobs before and after they run. See :mod:`worker.celery_bridge.monitoring`."""


class Runtime:
    """The asyncio side of one worker. Its public methods may be called from any thread.

    Args:
        admission: decides on jobs before they run.
        handler: the job's life.
        client: sends commands to Redis.
        broker_options: the options of the moves.
        in_flight: the jobs in flight.
        clock: the server's clock.
        flow: flow control: what holds this worker back, and the fleet.
        name: this worker's name in Redis; new for every process.
        registry: what the workers of the fleet tell of themselves.
        celery: what Celery is told of jobs.
        job_queues: returns the queues that Celery was told to consume.
        close_api: closes the API client.

    ``services`` may be added to until the start; they run on the loop.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        handler: LockConversation,
        client: RedisClient,
        broker_options: BrokerOptions,
        in_flight: InFlight,
        clock: ServerClock,
        flow: FlowControl,
        name: str,
        registry: Registry,
        celery: CeleryView,
        job_queues: Callable[[], Iterable[str]],
        close_api: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.in_flight = in_flight
        self.registry = registry
        self.services: list[Service] = []
        self._celery = celery
        self._client = client
        self._job_queues = job_queues
        self._close_api = close_api
        self._lease_numbers = count(1)
        self._loop_thread = LoopThread()
        background = self._background = Background()
        self.fetcher = Fetcher(
            name=name, moves=self._moves, in_flight=in_flight, clock=clock, gates=flow,
            next_lease_token=self.next_lease_token, not_heard=self._note_lost_take,
            claim_of=admission.claim_of,
        )  # fmt: skip
        settler = Settler(
            batches=self._batches, in_flight=in_flight, clock=clock, gates=flow,
            gates_changed=self.fetcher.gates_changed, slots_freed=self.fetcher.slots_freed, reports=celery,
        )  # fmt: skip
        self._executor = Executor(
            admission=admission, handler=handler, moves=self._moves, in_flight=in_flight, clock=clock,
            settler=settler, celery=celery, background=background,
        )  # fmt: skip
        self._queues = Queues(
            client, broker_options,
            in_flight=in_flight, clock=clock, next_lease_token=self.next_lease_token, fleet=flow,
            jobs=self._executor, settler=settler, on_ready=self.fetcher.check_queues,
            is_consumed=self.fetcher.consumes, background=background,
        )  # fmt: skip
        self._fleet = Fleet(
            client, broker_options,
            name=name, flow=flow, registry=registry, consumed=lambda: self.fetcher.queues, use=self._queues.use,
            background=background,
        )  # fmt: skip
        self._fetching: asyncio.Task[None] | None = None
        self._fleet_tasks: tuple[asyncio.Task[None], ...] = ()
        self._draining: asyncio.Task[None] | None = None
        self._release_at = self._end_at = math.inf
        self._celery_is_done = asyncio.Event()

    def next_lease_token(self) -> str:
        """Return a lease token that no other take has, of this or of any other worker."""
        return f"{self.name}.{next(self._lease_numbers)}"

    # -- for Celery's thread --

    def start(self) -> None:
        """Start the loop in its thread; return when it runs."""
        self._loop_thread.start(self._begin)

    def is_job_queue(self, queue: str) -> bool:
        """Return whether a queue holds jobs, and is not one of Celery's remote control."""
        return queue in self._job_queues()

    def consume(self, queue: str) -> None:
        """Take jobs from a queue, keep their leases, promote those that are due and recover those that were lost."""
        self._loop_thread.call(self._consume, queue)

    def cancel(self, queue: str) -> None:
        """Take no more jobs from a queue; return when that is so. Its jobs in flight are looked after."""
        # A signal handler may interrupt the wait and stop this runtime. An Event would deadlock then: who waits for it
        # holds a lock that its setter needs. A SimpleQueue may be interrupted.
        done: SimpleQueue[None] = SimpleQueue()
        self._loop_thread.call(self._cancel_queue, queue, done)
        if not self.in_flight.is_closed and self._loop_thread.is_alive:
            with suppress(Empty):
                done.get(timeout=_CANCEL_SECONDS)

    def queues_looked_after(self) -> list[str]:
        """Return the queues that jobs are taken from, or will be at once, and those of which jobs are in flight."""
        return list({*self._job_queues(), *self._queues.names()})

    def flush_monitoring(self) -> None:
        """Wake Celery's thread. For signal handlers: on that thread they only interrupt its sleep."""
        self._loop_thread.call(self._celery.flush_soon)

    def slots_changed(self) -> None:
        """Fetch again: the limit of jobs in flight was changed."""
        self._loop_thread.call(self.fetcher.slots_freed)

    def resume(self, assignments: Sequence[Assignment]) -> None:
        """Run jobs that Celery was shown."""
        self._loop_thread.call(self._executor.resume, assignments)

    def cancel_job(self, delivery: Delivery) -> None:
        """Stop running a job, and release it."""
        self._loop_thread.call(self._executor.cancel, delivery)

    def close(self, seconds: float) -> None:
        """Take no more; let the jobs in flight finish, and release what is left before ``seconds`` are over."""
        self.in_flight.is_closed = True
        self._loop_thread.call(self._begin_shutdown, seconds)

    def stop(self, seconds: float) -> None:
        """Close as :meth:`close` does, wait until that has happened, and end the loop.

        A second call may come from a signal handler while the first one waits, or when all is over. A handler may also
        have interrupted a thread that holds a lock which the loop needs, such as that of a log handler. So the wait is
        bounded: the interrupted thread goes on, frees the lock, and waits here again before the worker ends.
        """
        if self._loop_thread.is_alive:
            self.close(seconds)
            self._loop_thread.call(self._celery_is_done.set)
            self._loop_thread.join(seconds + _CLOSE_SECONDS)

    # -- for flow control, on the loop --

    def flow_changed(self) -> None:
        """Write what this worker has to change in the fleet's flow control."""
        self._fleet.flow_changed()

    def restore_attempts(self, jobs: Mapping[tuple[str, str], int]) -> None:
        """Give attempts back that an outage cost jobs which wait in Redis, by queue and ref."""
        for queue in self._queues.names():
            waiting = [(ref, attempts) for (where, ref), attempts in jobs.items() if where == queue]
            if waiting:
                self._fleet.restore_attempts(self._queues.moves(queue), waiting)

    # -- on the loop --

    def _moves(self, queue: str) -> Moves:
        return self._queues.moves(queue)

    def _batches(self, queue: str) -> QueueBatches:
        return self._queues.batches(queue)

    def _note_lost_take(self, queue: str, lease_token: str) -> None:
        self._queues.note_lost_take(queue, lease_token)

    async def _begin(self) -> None:
        for queue in self._job_queues():
            self._queues.open(queue)
        work = (self._fleet.report_breakers(), self._queues.watch(), self._fleet.stay_registered())
        self._fleet_tasks = tuple(asyncio.create_task(each) for each in work)
        for service in self.services:
            await service.start()

    def _consume(self, queue: str) -> None:
        if queue not in self._queues and len(self._queues) >= MAX_QUEUES:  # many were asked for at once
            logger.error("queue_refused", extra={"queue": queue, "queues": len(self._queues)})
            return
        self._queues.open(queue)
        self.fetcher.consume(queue)
        self._fleet.queues_changed()
        if self._fetching is None:
            self._fetching = self._background.spawn(self._fetch())

    async def _fetch(self) -> None:
        """Take jobs, and give them to the executor, until the shutdown."""
        await self._fleet.register()  # so that the first job is treated as the whole fleet would
        try:
            while not self.in_flight.is_closed:
                try:
                    await self._fetch_once()
                except Exception:  # an error of ours must not end the taking of jobs
                    logger.exception("take_error")
                    await asyncio.sleep(_AFTER_AN_ERROR_SECONDS)
        finally:
            self.fetcher.stop_waiting()

    async def _fetch_once(self) -> None:
        taken = await self.fetcher.fetch()
        if taken is None:
            return
        if taken.is_late:
            self._executor.release(taken.deliveries)
        else:
            self._executor.receive(taken.deliveries)

    def _cancel_queue(self, queue: str, done: SimpleQueue[None]) -> None:
        self.fetcher.cancel(queue)
        self._fleet.queues_changed()
        self._background.spawn(self._confirm_cancel(done))

    async def _confirm_cancel(self, done: SimpleQueue[None]) -> None:
        """Confirm when no message can be taken any more by what was under way, or when that cannot be known in time."""
        try:
            # A server that is away moves no message; others log that it is away.
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await self.fetcher.has_let_go()
                    # Until the server has read that a connection is closed, a message may still wake the wait on it. It
                    # reads that before it answers what is sent later.
                    await self._client.execute_command("PING")
        finally:
            done.put(None)

    def _begin_shutdown(self, seconds: float) -> None:
        """Begin to shut down, or hurry up: of several calls the one that allows least time counts."""
        end_at = time.monotonic() + seconds
        self._end_at = min(self._end_at, end_at)
        self._release_at = min(self._release_at, end_at - min(_MAX_RELEASE_SECONDS, seconds * _RELEASE_SHARE))
        if self._draining is None:
            self._draining = self._background.spawn(self._drain())

    async def _drain(self) -> None:
        """Wait until no job is in flight, close what is open, and end the loop, whatever goes wrong."""
        try:
            while self._has_work():
                if self._fetching is not None and not self.fetcher.is_fetching:
                    self._fetching.cancel()
                if time.monotonic() >= self._release_at:
                    self._executor.cancel_all()
                await asyncio.sleep(_POLL_SECONDS)
            if len(self.in_flight):
                logger.warning("jobs_left_to_their_leases", extra={"jobs": len(self.in_flight)})
            await self._close()
        finally:
            self._loop_thread.stop()

    async def _close(self) -> None:
        tasks = [*self._fleet_tasks, *self._queues.cancel_maintenance()]
        if self._fetching is not None:
            tasks.append(self._fetching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fleet.leave()
        for service in self.services:
            await service.stop()
        await self._close_api()
        await self._client.disconnect()

    def _has_work(self) -> bool:
        """Return whether Celery may still want something, or jobs are in flight or being taken and time is left."""
        if not self._celery_is_done.is_set():
            return True
        is_fetching = self._fetching is not None and not self._fetching.done()
        return (is_fetching or len(self.in_flight) > 0) and time.monotonic() < self._end_at
