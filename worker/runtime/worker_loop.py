"""What runs on the asyncio loop of a worker: it puts the parts together, and starts and stops work on queues."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from worker.runtime.executor import Executor
from worker.runtime.fetch_loop import FetchLoop
from worker.runtime.fetcher import Fetcher
from worker.runtime.fleet import Fleet
from worker.runtime.id_claims import IdClaims
from worker.runtime.queues import MAX_QUEUES, Queues
from worker.runtime.settler import Settler
from worker.runtime.shutdown import Shutdown, close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from queue import SimpleQueue

    from worker.broker.job_moves import JobMoves
    from worker.runtime.runtime_parts import RuntimeParts, Service
    from worker.runtime.settler import QueueBatches

logger = logging.getLogger(__name__)

#: How long a cancelled queue waits at most for the confirmation that nothing more is taken.
CANCEL_SECONDS = 1.0


class WorkerLoop:
    """One worker's life on the loop. All methods are for the loop, but for :meth:`next_lease_token`.

    ``services`` may be added to until the start.
    """

    def __init__(self, parts: RuntimeParts, stop_loop: Callable[[], None]) -> None:
        self.services: list[Service] = []
        self._parts = parts
        self._lease_numbers = count(1)
        self._background = parts.background
        # The fetcher, the settler and the executor need the queues, which are made last: hence methods of this class.
        self.fetcher = Fetcher(
            name=parts.name, moves=self._moves, in_flight=parts.in_flight, clock=parts.clock, gates=parts.flow,
            next_lease_token=self.next_lease_token, on_lost_take=self._note_lost_take,
            claim_of=parts.admission.claim_of,
        )  # fmt: skip
        settler = Settler(
            batches=self._batches, in_flight=parts.in_flight, clock=parts.clock, gates=parts.flow,
            gates_changed=self.fetcher.gates_changed, slots_freed=self.fetcher.slots_freed, reports=parts.celery,
        )  # fmt: skip
        self.executor = Executor(
            admission=parts.admission, handler=parts.handler, claims=IdClaims(self._moves, parts.controls),
            in_flight=parts.in_flight, clock=parts.clock, settler=settler, celery=parts.celery,
            background=self._background, controls=parts.controls, guard=parts.guard,
        )  # fmt: skip
        self.queues = Queues(
            parts.client, parts.broker_options,
            in_flight=parts.in_flight, clock=parts.clock, next_lease_token=self.next_lease_token, fleet=parts.flow,
            jobs=self.executor, settler=settler, on_ready=self.fetcher.check_queue,
            is_consumed=self.fetcher.queues.__contains__, background=self._background, controls=parts.controls,
        )  # fmt: skip
        self.fleet = Fleet(
            parts.client, parts.broker_options,
            name=parts.name, flow=parts.flow, registry=parts.registry, consumed=lambda: tuple(self.fetcher.queues),
            use=self.queues.use, background=self._background, controls=parts.controls,
        )  # fmt: skip
        # It registers first, so that the first job is treated as the whole fleet would.
        self._fetching = FetchLoop(
            self.fetcher, self.executor, parts.in_flight,
            controls=parts.controls, before=self.fleet.register, background=self._background,
        )  # fmt: skip
        self.shutdown = Shutdown(
            parts.in_flight, self._fetching, self.executor,
            close=self._close, stop_loop=stop_loop, background=self._background,
        )  # fmt: skip

    def next_lease_token(self) -> str:
        """Return a lease token that no other take has, of this or of any other worker."""
        return f"{self._parts.name}.{next(self._lease_numbers)}"

    async def begin(self) -> None:
        """Look after the queues that Celery was told to consume, join the fleet, and start the services."""
        for queue in self._parts.job_queues():
            self.queues.open(queue)
        work = (self.queues.watch(), self.fleet.stay_registered())
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
        self._fetching.start()

    def cancel(self, queue: str, done: SimpleQueue[None]) -> None:
        """Take no more jobs from a queue; put something into ``done`` when that is so."""
        self.fetcher.cancel(queue)
        self.fleet.queues_changed()
        self._background.spawn(self._confirm_cancel(done))

    def remember_revoked(self, job_ids: Sequence[str]) -> None:
        """Note in Redis that job ids are revoked through Celery."""
        if job_ids:
            self._background.spawn(self._parts.revokes.remember(job_ids))

    def restore_attempts(self, jobs: Mapping[tuple[str, str], int]) -> None:
        """Give attempts back that an outage cost jobs which wait in Redis, by queue and ref."""
        for queue in self.queues.names():
            waiting = [(ref, attempts) for (where, ref), attempts in jobs.items() if where == queue]
            if waiting:
                self.fleet.restore_attempts(self._moves(queue), waiting)

    async def _confirm_cancel(self, done: SimpleQueue[None]) -> None:
        """Confirm when no message can be taken any more by what was under way, or when that cannot be known in time."""
        try:
            # A server that is away moves no message; others log that it is away.
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    await self.fetcher.cancelled()
                    # Until the server has read that a connection is closed, a message may still wake the wait on it. It
                    # reads that before it answers what is sent later.
                    await self._parts.client.execute_command("PING")
        finally:
            done.put(None)

    async def _close(self) -> None:
        """Close what is open, when no job is in flight any more."""
        await close_all(
            self._background.cancel,
            self.fleet.leave,
            *(service.stop for service in self.services),
            self._parts.close_api,
            self._parts.client.disconnect,
        )

    def _moves(self, queue: str) -> JobMoves:
        return self.queues.moves(queue)

    def _batches(self, queue: str) -> QueueBatches:
        return self.queues.batches(queue)

    def _note_lost_take(self, queue: str, lease_token: str) -> None:
        self.queues.note_lost_take(queue, lease_token)
