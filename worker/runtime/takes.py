"""Sends takes, one at a time, and notes what each of them brought.

A take goes alone where the queue was looked at just now. Where a message ended the last wait, the next wait goes behind
the take, with the claim of that message (``worker.broker.follow_up``): that saves a round trip for each.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import RedisError

from worker.broker.records import TakeState
from worker.broker.refusals import may_have_been_run
from worker.observe.outages import outages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.broker.follow_up import FollowUp
    from worker.broker.job_moves import JobMoves
    from worker.broker.records import Claim, Delivery, Taken, TakeRequest
    from worker.runtime.clock import ServerClock
    from worker.runtime.consumed_queues import ConsumedQueues
    from worker.runtime.in_flight import InFlight
    from worker.runtime.message_waits import MessageWaits
    from worker.runtime.take_delays import TakeDelays


class TakeObserver(Protocol):
    """Flow control, as it hears of takes."""

    def took(self, request: TakeRequest, taken: Taken) -> None:
        """Note what a take returned."""

    def not_taken(self) -> None:
        """Note that a take failed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs of one take.

    Attributes:
        deliveries: the jobs.
        is_late: while the take was under way this worker was closed, or left the queue; the jobs are to be released.
    """

    deliveries: Sequence[Delivery]
    is_late: bool


class Takes:
    """The takes of one worker.

    Args:
        name: the worker's name in Redis.
        queues: the queues that jobs are taken from; each answer says which are empty.
        waits: the waits for messages.
        delays: the delays before the next take.
        moves: returns the moves of a queue.
        in_flight: the jobs in flight; taken jobs are added.
        clock: set to the server's time by each answer.
        observer: hears of each take.
        next_lease_token: makes a lease token.
        on_lost_take: called with the queue and the lease token of a take whose answer was lost.
        claim_of: returns the claim that a message's job will need as soon as it is taken, if any.
    """

    def __init__(
        self,
        *,
        name: str,
        queues: ConsumedQueues,
        waits: MessageWaits,
        delays: TakeDelays,
        moves: Callable[[str], JobMoves],
        in_flight: InFlight,
        clock: ServerClock,
        observer: TakeObserver,
        next_lease_token: Callable[[], str],
        on_lost_take: Callable[[str, str], None],
        claim_of: Callable[[bytes], Claim | None],
    ) -> None:
        self._name = name
        self._queues = queues
        self._waits = waits
        self._delays = delays
        self._moves = moves
        self._in_flight = in_flight
        self._clock = clock
        self._observer = observer
        self._next_lease_token = next_lease_token
        self._on_lost_take = on_lost_take
        self._claim_of = claim_of
        self._no_call = asyncio.Event()
        self._no_call.set()
        #: The time of the last answer, on the monotonic clock.
        self.last_answer_at: float | None = None

    @property
    def is_under_way(self) -> bool:
        """True while a take is in progress: cancelling then would strand its jobs until their leases expire."""
        return not self._no_call.is_set()

    async def answered(self) -> None:
        """Return when no take is in progress."""
        await self._no_call.wait()

    async def send(self, queue: str, request: TakeRequest, message: bytes | None) -> Batch | None:
        """Take jobs from a queue; None: it brought none, or failed.

        ``message`` ended the last wait for this queue, just before.
        """
        follow_up = self._follow_up(queue, request, message)
        sent_at, token = time.monotonic(), self._next_lease_token()
        self._no_call.clear()
        try:
            taken = await self._moves(queue).take(
                request, token=token, worker=self._name, sent_at=sent_at, follow_up=follow_up
            )
        except (RedisError, OSError) as error:
            self._observer.not_taken()
            if may_have_been_run(error):
                self._on_lost_take(queue, token)
            self._delays.failed("take", queue, error)
            return None
        else:
            outages.worked("take", queue)
            has_room = taken.state in {TakeState.JOBS, TakeState.EMPTY} and len(taken.jobs) < request.wanted
            if follow_up is not None:
                self._keep_waiting(queue, taken, follow_up, has_room=has_room)
            batch = self._taken(queue, request, taken, sent_at)
            if has_room:
                self._waits.start(self._queues)
            return batch
        finally:
            self._no_call.set()

    def _follow_up(self, queue: str, request: TakeRequest, message: bytes | None) -> FollowUp | None:
        """Return what to send behind a take that most likely empties the lists and leaves free slots."""
        if message is None or queue in self._waits or request.wanted <= 1:
            return None
        return self._moves(queue).follow_up(self._claim_of(message), wait_seconds=self._waits.seconds)

    def _keep_waiting(self, queue: str, taken: Taken, follow_up: FollowUp, *, has_room: bool) -> None:
        """Note the claim that was sent behind a take, and go on with the wait that was sent behind it."""
        for delivery in taken.jobs:
            delivery.claimed = follow_up.claimed
        if not follow_up.is_waiting:
            return
        # A worker that is held back, or has no free slot, would wait for messages that others could take at once.
        if self._is_late(queue) or not has_room:
            self._waits.give_up(follow_up)
        else:
            self._waits.keep(queue, follow_up)

    def _taken(self, queue: str, request: TakeRequest, taken: Taken, sent_at: float) -> Batch | None:
        """Note the answer of a take: in flow control, in the register of jobs, and about the queue."""
        self._observer.took(request, taken)
        self.last_answer_at = time.monotonic()
        self._delays.answered()
        self._clock.sync(taken.server_ms)
        if sum(delivery.is_retry for delivery in taken.jobs) >= request.max_retries:
            self._queues.mark_retries_left(queue)
        for delivery in taken.jobs:
            self._in_flight.add(delivery)
        if self._is_late(queue):
            return Batch(taken.jobs, is_late=True)
        self._in_flight.is_draining = taken.state is TakeState.DRAIN
        if taken.emptied_queue:
            self._queues.mark_empty(queue)
        else:
            self._queues.look_again(queue)
            self._delays.space(sent_at)
        if taken.wait_ms:
            self._delays.hold_back(taken.wait_ms / 1000)
        # The other queues come first, but not before a suspect: with their jobs in flight it would never run alone.
        self._queues.try_next(queue, is_first=self._in_flight.is_draining)
        return Batch(taken.jobs, is_late=False) if taken.jobs else None

    def _is_late(self, queue: str) -> bool:
        """Return whether this worker was closed, or left the queue, since the take was sent."""
        return self._in_flight.is_closed or queue not in self._queues
