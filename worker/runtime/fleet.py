"""What one worker and the rest of its fleet tell each other in Redis, beside the jobs.

Each worker registers itself with what it does, writes changes of the fleet's flow control, and gives attempts back that
an outage cost jobs which wait in Redis.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from worker.broker.fleet_moves import FleetMoves
from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.broker.broker_options import BrokerOptions
    from worker.broker.client import RedisClient
    from worker.broker.job_moves import JobMoves
    from worker.flow_control.gates import Gates
    from worker.runtime.background import Background
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.registry import Registry

logger = logging.getLogger(__name__)

#: How often a worker registers itself; and how often it looks whether it has to at once.
_REGISTER_SECONDS = 5.0
_LOOK_SECONDS = 0.5
#: How long a worker tries to take itself out of the register at its end.
_LEAVE_SECONDS = 1.0


class Fleet:
    """One worker's part in the fleet.

    Args:
        client: sends commands to Redis.
        options: the options of the moves.
        name: the worker's name in Redis.
        flow: this worker's flow control.
        registry: what the worker registers about itself, and knows of the others.
        consumed: returns the queues that jobs are taken from.
        use: called with other options of the moves, where the longest times in the fleet differ from this worker's.
        background: runs tasks that no caller waits for.
        controls: what operators asked for.
    """

    def __init__(
        self,
        client: RedisClient,
        options: BrokerOptions,
        *,
        name: str,
        flow: Gates,
        registry: Registry,
        consumed: Callable[[], Sequence[str]],
        use: Callable[[BrokerOptions], None],
        background: Background,
        controls: ControlWatch,
    ) -> None:
        self._moves = FleetMoves(client, options)
        self._name = name
        self._flow = flow
        self._registry = registry
        self._consumed = consumed
        self._use = use
        self._background = background
        self._controls = controls
        self._queues_changed = asyncio.Event()
        self._throttling: asyncio.Task[None] | None = None

    def queues_changed(self) -> None:
        """Register again soon: jobs are taken from other queues now."""
        self._queues_changed.set()

    def flow_changed(self) -> None:
        """Write what this worker has to change in the fleet's flow control."""
        if self._throttling is None or self._throttling.done():
            self._throttling = self._background.spawn(self._throttle())

    def restore_attempts(self, moves: JobMoves, jobs: Sequence[tuple[str, int]]) -> None:
        """Give attempts back to jobs of a queue that wait in Redis: refs, and how many each."""
        self._background.spawn(self._restore_attempts(moves, jobs))

    async def register(self) -> None:
        """Register this worker, and learn how the others are set."""
        registry = self._registry
        try:
            others = await self._moves.register(self._name, registry.digest, registry.entry(self._consumed()))
            self._learn_of(others)
        except (RedisError, OSError) as error:  # the next time will do; what keeps the jobs from moving is logged there
            logger.debug("not_registered", extra={"error": str(error)})
        except Exception:  # an error of ours must not end the taking of jobs, which begins with this
            logger.exception("not_registered")

    async def leave(self) -> None:
        """Take this worker out of the register, if Redis answers soon."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._moves.register(self._name, "", "")

    async def stay_registered(self) -> None:
        """Register from time to time, and whenever the queues, the open breakers or the controls change, for ever."""
        while True:
            self._queues_changed.clear()
            before = self._urgent()
            await self.register()
            for _ in range(round(_REGISTER_SECONDS / _LOOK_SECONDS)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._queues_changed.wait()
                if self._queues_changed.is_set() or self._urgent() != before:
                    break

    def _urgent(self) -> tuple[int, list[str]]:
        """Return what others wait for: the version of the controls that this worker obeys, and its open breakers."""
        return self._controls.version, [breaker.reason for breaker in self._flow.breakers if breaker.is_open]

    async def _throttle(self) -> None:
        while (change := self._flow.change()) is not None:
            _, fleet = await retry_forever("throttle", partial(self._moves.throttle, change))
            self._flow.saw(fleet)

    async def _restore_attempts(self, moves: JobMoves, jobs: Sequence[tuple[str, int]]) -> None:
        try:
            await moves.restore_attempts(jobs)
        except (RedisError, OSError) as error:  # they lose an attempt; a second try could give them two
            logger.warning("attempts_not_restored", extra={"error": str(error), "jobs": len(jobs)})

    def _learn_of(self, others: Sequence[tuple[str, bytes]]) -> None:
        """Note how the other workers are set. The longest times among them count here too."""
        registry, options = self._registry, self._moves.broker_options
        registry.learn_of(others)
        longest_lease_ms = round(registry.longest("LEASE_SECONDS") * 1000)
        dedup_ttl_ms = round(registry.longest("DEDUPLICATE_SECONDS") * 1000)
        if (longest_lease_ms, dedup_ttl_ms) != (options.longest_lease_ms, options.dedup_ttl_ms):
            self._moves.broker_options = replace(options, longest_lease_ms=longest_lease_ms, dedup_ttl_ms=dedup_ttl_ms)
            self._use(self._moves.broker_options)
