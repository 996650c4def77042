"""Maintains the queues of a worker: renews leases, promotes jobs that are due, recovers jobs that were lost.

It runs on the asyncio loop, because Celery's loop stops during reconnects and shutdown, and leases must not lapse then.
The scripts let one worker of the fleet through at a time, so a hundred idle workers do not look a hundred times as
often.

If a worker has several queues, those without jobs are looked at seldom. :class:`QueueWatch` asks for all of them at
once whether jobs have arrived.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import RedisError, ResponseError

from worker.broker.backlogs import backlogs
from worker.broker.keys import Keys
from worker.broker.move_limits import EXPIRE_JOBS, RELEASE_HELD_JOBS
from worker.broker.refusals import may_have_been_run
from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.broker.maintenance_moves import MaintenanceMoves
    from worker.broker.records import Delivery, FleetNews, Recovered
    from worker.broker.script_calls import Client
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import InFlight

logger = logging.getLogger(__name__)

#: The longest and the shortest time between two looks at a queue, in seconds. There are at least six looks in the time
#: of a lease: otherwise ``recover.lua`` would take an idle fleet for an outage of Redis.
_LOOK_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 0.02
_LOOKS_IN_A_LEASE = 6
#: The longest time for a queue without jobs that is one of several: :class:`QueueWatch` finds jobs that arrive there.
_IDLE_LOOK_SECONDS = 10.0
#: The least time between two promotes, and between two recovers, of the whole fleet, in milliseconds. A recover is also
#: allowed after this share of the time between two looks.
_PROMOTE_BETWEEN_MS = 20
_RECOVER_BETWEEN_MS = 400
_RECOVER_SHARE = 0.8
#: Leases are renewed three times in their length, and again after this many seconds when that failed.
_RENEWALS = 3
_RENEW_AGAIN_SECONDS = 0.25
_RENEW_AT_ONCE = 500
_NEWER_WORKER = "Start a worker of the version that wrote them; until then they wait, and none is lost."
#: One look ends jobs that are too old in so many calls at most, so that it does not keep others waiting.
_EXPIRE_CALLS = 10
#: The same for jobs whose hold is released.
_RELEASE_CALLS = 10


class Fleet(Protocol):
    """The fleet's flow control, as far as it is known here."""

    @property
    def version(self) -> int:
        """The version of it that is known."""

    def saw(self, fleet: FleetNews) -> None:
        """Note the fleet's state as it is in Redis."""


class Maintenance:
    """Looks after one queue.

    Args:
        moves: the queue's moves.
        in_flight: the jobs in flight.
        clock: set to the server's time.
        next_lease_token: makes a lease token.
        fleet: the fleet's flow control: says which version of it is known, and gets the one in Redis.
        on_ready: called when jobs became ready, so that this worker need not wait to see them.
        on_recovered: called with jobs that lost workers had, to log them.
        on_poisoned: given each job that is to be ended as poisoned.
        on_expired: given jobs that are too old.
        may_hold: whether jobs may be held: operators asked for something, some time.
        on_lost_take: called with the queue and the lease token of a take whose answer was lost.
    """

    def __init__(
        self,
        moves: MaintenanceMoves,
        in_flight: InFlight,
        clock: ServerClock,
        *,
        next_lease_token: Callable[[], str],
        fleet: Fleet,
        on_ready: Callable[[], None],
        on_recovered: Callable[[Recovered], None],
        on_poisoned: Callable[[Delivery], None],
        on_expired: Callable[[Sequence[Delivery]], None],
        on_lost_take: Callable[[str, str], None],
        may_hold: Callable[[], bool] = lambda: False,
    ) -> None:
        self._moves = moves
        self._in_flight = in_flight
        self._clock = clock
        self._next_lease_token = next_lease_token
        self._on_ready = on_ready
        self._on_recovered = on_recovered
        self._on_poisoned = on_poisoned
        self._on_expired = on_expired
        self._on_lost_take = on_lost_take
        self._may_hold = may_hold
        self._fleet = fleet
        self._look_seconds = look_seconds(moves.broker_options.lease_ms)
        self._work = asyncio.Event()
        self._is_idle = False
        self._recover_between_ms = min(_RECOVER_BETWEEN_MS, round(self._look_seconds * 1000 * _RECOVER_SHARE))

    async def renew_leases(self) -> None:
        """Renew the leases of what this worker holds, for ever."""
        seconds = self._moves.broker_options.lease_ms / 1000 / _RENEWALS
        while True:
            await retry_forever(
                "renew",
                self.renew_once,
                queue=self._moves.keys.queue,
                wait_seconds=min(_RENEW_AGAIN_SECONDS, seconds),
                facts=lambda: {"jobs": len(self._in_flight)},
                log_error=self._log_renewal_error,
            )
            await asyncio.sleep(seconds)

    def _log_renewal_error(self, error: Exception, *_: object) -> None:
        logger.error("leases_not_renewed", exc_info=error, extra={"jobs": len(self._in_flight)})

    async def renew_once(self) -> None:
        """Renew all leases; a job that is not ours any more is marked, so that it is not called again."""
        held = [delivery for delivery in self._in_flight.deliveries() if delivery.queue == self._moves.keys.queue]
        for start in range(0, len(held), _RENEW_AT_ONCE):
            some = held[start : start + _RENEW_AT_ONCE]
            sent_at = time.monotonic()
            answers = await self._moves.renew(some)
            for delivery, is_ours in zip(some, answers, strict=True):
                if is_ours:
                    delivery.lease_until = sent_at + self._moves.broker_options.lease_ms / 1000
                else:
                    delivery.lease_lost = True

    async def run(self) -> None:
        """Promote what is due and recover what was lost, for ever."""
        while True:
            seconds = await retry_forever(
                "maintenance",
                self.run_once,
                queue=self._moves.keys.queue,
                wait_seconds=self._look_seconds,
                sleep=self._until_next_look,
                log_error=self._log_own_error,
            )
            await self._until_next_look(seconds)

    async def _until_next_look(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._is_idle:
            await self._wait_for_work(_IDLE_LOOK_SECONDS - seconds)

    def _log_own_error(self, error: Exception, *_: object) -> None:
        logger.error("maintenance_failed", exc_info=error)

    def rest(self) -> None:
        """Look seldom from now on: the queue has no job to look after."""
        self._is_idle = True
        self._work.clear()

    def wake(self) -> None:
        """Look as often as ever."""
        self._is_idle = False
        self._work.set()

    async def _wait_for_work(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._work.wait()
        except TimeoutError:
            pass

    async def run_once(self) -> float:
        """Promote and recover once; returns the seconds until the next look."""
        promoted = await self._moves.promote(between_ms=_PROMOTE_BETWEEN_MS, version=self._fleet.version)
        self._fleet.saw(promoted.fleet)
        if promoted.set_aside:
            logger.warning(
                "jobs_need_newer_worker",
                extra={"queue": self._moves.keys.queue, "jobs": promoted.set_aside, "advice": _NEWER_WORKER},
            )
        sent_at = time.monotonic()
        recovered = await self._moves.recover(
            token=self._next_lease_token(), sent_at=sent_at, between_ms=self._recover_between_ms
        )
        self._clock.sync(recovered.server_ms)
        if recovered.is_grace:
            await self.renew_once()  # the next renewal in turn may come after the time of grace
        for delivery in recovered.poisoned:
            self._on_poisoned(delivery)
            self._in_flight.add(delivery)  # only now: a job that nobody ends must not have its lease renewed
        if recovered.count or recovered.poisoned:
            self._on_recovered(recovered)
        if promoted.next_deadline_ms == 0:
            await self._expire()
        released = await self._release_held() if self._may_hold() else 0
        if promoted.count or recovered.count or released:
            self._on_ready()
        if promoted.next_due_ms is None:
            return self._look_seconds
        return min(self._look_seconds, max(_LOOK_AGAIN_SECONDS, promoted.next_due_ms / 1000))

    async def _release_held(self) -> int:
        """Make jobs ready whose hold is released or over; return how many."""
        released = 0
        for _ in range(_RELEASE_CALLS):
            released += (moved := await self._moves.release_held())
            if moved < RELEASE_HELD_JOBS:
                break
        return released

    async def _expire(self) -> None:
        for _ in range(_EXPIRE_CALLS):
            sent_at, token = time.monotonic(), self._next_lease_token()
            try:
                expired = await self._moves.expire(token=token, sent_at=sent_at)
            except (RedisError, OSError) as error:
                if may_have_been_run(error):
                    self._on_lost_take(self._moves.keys.queue, token)
                raise
            for delivery in expired:
                self._in_flight.add(delivery)
            if expired:
                self._on_expired(expired)
            if len(expired) < EXPIRE_JOBS:
                break


class QueueWatch:
    """Looks at all queues of a worker at once, so that idle ones cost little and none of them waits for its turn.

    It finds jobs on lists that cannot be waited on. It wakes the maintenance of queues that have work for it, and lets
    that of the others rest, except that of the first queue, which also brings the state of the fleet. A queue that no
    jobs are taken from any more is left once none of its jobs needs maintenance.

    Args:
        client: sends commands.
        maintenances: of each queue.
        in_flight: the jobs in flight.
        look_seconds: the time between two looks.
        is_consumed: whether jobs are taken from a queue.
        on_ready: called with a queue that has jobs to be taken.
        on_left: called with a queue that needs no maintenance any more.
    """

    def __init__(
        self,
        client: Client,
        maintenances: Mapping[str, Maintenance],
        in_flight: InFlight,
        *,
        look_seconds: float,
        is_consumed: Callable[[str], bool],
        on_ready: Callable[[str], None],
        on_left: Callable[[str], None],
    ) -> None:
        self._client = client
        self._maintenances = maintenances
        self._in_flight = in_flight
        self._look_seconds = look_seconds
        self._is_consumed = is_consumed
        self._on_ready = on_ready
        self._on_left = on_left
        self._is_refused = False

    async def run(self) -> None:
        """Look at the queues, for ever."""
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                await self.run_once()
                self._is_refused = False
            except ResponseError as error:
                if not self._is_refused:
                    self._is_refused = True
                    logger.warning(
                        "maintenance_failed", extra={"error": str(error), "queues": list(self._maintenances)}
                    )
                self._look_everywhere()
            except (RedisError, OSError):  # the maintenance of each queue logs a lost server
                self._look_everywhere()
            except Exception:
                logger.exception("maintenance_failed")
                self._look_everywhere()

    async def run_once(self) -> None:
        """Look once.

        A single queue needs it only to be left: its maintenance never rests, and takes look at its lists.
        """
        queues = list(self._maintenances)
        if len(queues) == 1 and self._is_consumed(queues[0]):
            self._maintenances[queues[0]].wake()
            return
        if not queues:
            return
        found = await backlogs(self._client, [Keys(queue) for queue in queues])
        held = {delivery.queue for delivery in self._in_flight.deliveries()}
        for queue, backlog in zip(queues, found, strict=True):
            if backlog.is_under_way or queue in held or queue == queues[0]:
                self._maintenances[queue].wake()
            else:
                self._maintenances[queue].rest()
            if self._is_consumed(queue):
                if backlog.is_ready:
                    self._on_ready(queue)
            elif not backlog.is_under_way and queue not in held:
                self._on_left(queue)

    def _look_everywhere(self) -> None:
        for queue, maintenance in self._maintenances.items():
            maintenance.wake()
            self._on_ready(queue)


def look_seconds(lease_ms: int) -> float:
    """Return the longest time between two looks at a queue with jobs, in seconds, for leases of this length."""
    return min(_LOOK_SECONDS, lease_ms / 1000 / _LOOKS_IN_A_LEASE)
