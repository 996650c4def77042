"""Takes jobs while there is room for them, and waits for the next message while there are none.

The fetcher sends ``take`` until the lists are empty. Then it waits with ``BLMOVE``, which moves a message from the
producers' list to our ``arrived`` list: that wakes exactly one waiting worker for each message and leaves the message
in Redis. Then it sends a take again. It does not send the take behind the wait, although that would save a round trip:
if the connection was lost without notice, the server would take jobs for a worker that never hears of them, and they
would come back only when their leases expire. It does send the next wait behind the take, with the claim of the message
that ended the last wait (``worker.broker.follow_up``).

``BLMOVE`` takes one list. The blocking pops that take several remove the message, which would be lost with the worker.
So each queue has a wait and a connection of its own. With several queues the waits are longer, so that their number a
second stays about the same. Jobs on the other lists are found by ``worker.runtime.maintenance``, for all queues at
once.

It runs on the asyncio loop, where the jobs run. A job that went through Celery's thread would pass from core to core,
and two threads that compete for the interpreter wake each other in vain at every system call. That cost as much CPU as
everything else that a job needs besides its call.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from redis.exceptions import RedisError, ResponseError

from worker.broker.records import TakeState
from worker.broker.refusals import connection_is_useless, may_have_been_run
from worker.flow_control.gate_answer import Wait
from worker.observe.outages import outages
from worker.runtime.batcher import SPACING_SECONDS
from worker.runtime.message_waits import MessageWaits
from worker.runtime.retries import FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.broker.follow_up import FollowUp
    from worker.broker.job_moves import JobMoves
    from worker.broker.records import Claim, Delivery, Taken, TakeRequest
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import InFlight

#: The queue of a message, and its bytes.
Message: TypeAlias = tuple[str, bytes]

#: How long the wait for a message lasts with one queue, in seconds. Then a take looks at the other lists.
WAIT_SECONDS = 0.5
#: The longest wait with many queues, in seconds: less than the timeout for an answer of Redis.
_MAX_MESSAGE_WAIT_SECONDS = 3.0
#: With many queues a take is sent at least this often, in seconds: readiness expects one in five seconds.
_TAKE_SECONDS = 1.5
#: How long a queue is skipped after the server refused a call for it, in seconds.
_REFUSED_SECONDS = 1.0
#: A gate that holds back is asked again at least this often, in seconds.
_ASK_AGAIN_SECONDS = 1.0


class Gates(Protocol):
    """Flow control, as the fetcher asks it before each take."""

    def ask(self) -> TakeRequest | Wait:
        """Return what to take now, or how long to wait and why."""

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


class Fetcher:
    """Takes jobs for one worker from all its queues.

    Args:
        name: the worker's name in Redis.
        moves: a queue's moves.
        in_flight: the jobs in flight; taken jobs are added.
        clock: set to the server's time by each answer.
        gates: this process's gates.
        next_lease_token: makes a lease token.
        on_lost_take: called with the queue and the lease token of a take whose answer was lost.
        claim_of: the claim that a message's job will need as soon as it is taken, if any.
    """

    def __init__(
        self,
        *,
        name: str,
        moves: Callable[[str], JobMoves],
        in_flight: InFlight,
        clock: ServerClock,
        gates: Gates,
        next_lease_token: Callable[[], str],
        on_lost_take: Callable[[str, str], None],
        claim_of: Callable[[bytes], Claim | None],
    ) -> None:
        self._name = name
        self._moves = moves
        self._in_flight = in_flight
        self._clock = clock
        self._gates = gates
        self._next_lease_token = next_lease_token
        self._on_lost_take = on_lost_take
        self._claim_of = claim_of
        self._queues: list[str] = []
        #: The queues that the last take found empty, until a message arrives or `check_queues` is called.
        self._empty: set[str] = set()
        self._retries_may_wait: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._held_back_until = self._full_until = 0.0
        self._backoff_seconds = FIRST_WAIT_SECONDS
        self._wakeup = asyncio.Event()
        self._waits = MessageWaits(self._wakeup.set)
        self._no_call = asyncio.Event()
        self._no_call.set()
        #: The time of the last answer to a take, on the monotonic clock.
        self.last_fetch_at: float | None = None

    @property
    def is_fetching(self) -> bool:
        """True while a take is in progress: cancelling then would strand its jobs until their leases expire."""
        return not self._no_call.is_set()

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that jobs are taken from."""
        return tuple(self._queues)

    def consume(self, queue: str) -> None:
        """Take jobs from this queue from now on."""
        if queue not in self._queues:
            self._queues.append(queue)
            self._stop_waiting(queue)  # an earlier wait may be on a server that has become a replica
        self.check_queues(queue)

    def cancel(self, queue: str) -> None:
        """Take no more from this queue; jobs of a take in progress are released. See :meth:`has_let_go`."""
        if queue in self._queues:
            self._queues.remove(queue)
        self._stop_waiting(queue)
        self._not_before.pop(queue, None)
        self._wakeup.set()

    async def has_let_go(self) -> None:
        """Return when a take in progress, if any, is answered, and the connections of stopped waits are closed."""
        await self._no_call.wait()
        await self._waits.closed()

    def _stop_waiting(self, queue: str) -> None:
        self._waits.stop(queue)
        self._empty.discard(queue)

    def check_queues(self, queue: str) -> None:
        """Look at a queue again: jobs may have become ready on lists that cannot be waited on."""
        self._empty.discard(queue)
        self._wakeup.set()

    def slots_freed(self) -> None:
        """Look again: there may be free slots."""
        if self._retries_may_wait:
            self._empty -= self._retries_may_wait
            self._retries_may_wait.clear()
        self._wakeup.set()

    def gates_changed(self) -> None:
        """Ask the gates again: a permit was given back unused, so they may let more jobs pass."""
        self._held_back_until = self._full_until = 0.0
        self._wakeup.set()

    def consumes(self, queue: str) -> bool:
        """Return whether jobs are taken from a queue."""
        return queue in self._queues

    async def fetch(self) -> Batch | None:
        """Wait for jobs and take them; None: this worker takes no more."""
        batch = None
        while batch is None and not self._in_flight.is_closed:
            batch = await self._step()
        return batch

    def stop_waiting(self) -> None:
        """End all waits for messages."""
        self._waits.stop_all()

    async def _step(self) -> Batch | None:
        """Take jobs, or wait for what is in the way."""
        # Only for the take that follows at once: later, another worker may have taken the message.
        woken_by = self._look_at_the_waits()
        now = time.monotonic()
        queues = [queue for queue in self._queues if now >= self._not_before.get(queue, now)]
        wanted = self._in_flight.free_slots()
        if not queues or wanted <= 0:
            await self._wait_for_news()
        elif now < self._held_back_until:
            await self._wait_for_news(min(self._held_back_until - now, _ASK_AGAIN_SECONDS))
        elif now < self._full_until and wanted < len(self._in_flight):
            # Soon more slots will be free, and one take fills them all.
            await asyncio.sleep(self._full_until - now)
        elif (queue := next((queue for queue in queues if queue not in self._empty), None)) is not None:
            return await self._ask_and_take(queue, woken_by if woken_by is not None and woken_by[0] == queue else None)
        else:
            self._wait_for_messages(queues)
            await self._wait_for_news()
        return None

    async def _wait_for_news(self, seconds: float = _ASK_AGAIN_SECONDS) -> None:
        # Every change of what `_step` looks at sets the event, and nothing awaits between that look and here.
        self._wakeup.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wakeup.wait()
        except TimeoutError:
            pass

    def _wait_for_messages(self, queues: Sequence[str]) -> None:
        """Wait on each queue that is empty and is not waited on yet."""
        for queue in queues:
            if queue in self._empty and queue not in self._waits:
                self._waits.start(queue, self._moves(queue).wait(self._wait_seconds()))

    def _wait_seconds(self) -> float:
        return min(WAIT_SECONDS * max(1, len(self._queues)), max(WAIT_SECONDS, _MAX_MESSAGE_WAIT_SECONDS))

    def _look_at_the_waits(self) -> Message | None:
        """Mark queues whose wait has ended, and report waits that failed; return the message that ended one."""
        woken_by = None
        # If several waits end without a message, one take is enough: `worker.runtime.maintenance` looks at the other
        # lists.
        is_take_due = (
            len(self._queues) == 1
            or self.last_fetch_at is None
            or time.monotonic() - self.last_fetch_at > _TAKE_SECONDS
        )
        for queue, task in self._waits.take_ended():
            was_empty = queue in self._empty
            self._empty.discard(queue)  # also if it was refused: a full server refuses only the wait
            if task.cancelled():
                continue
            error = task.exception()
            if error is not None:
                self._wait_failed(queue, error)
                continue
            outages.worked("wait", queue)
            if was_empty and (message := task.result()) is not None:
                woken_by = queue, message
            elif was_empty and not is_take_due:
                self._empty.add(queue)
            elif was_empty:
                is_take_due = False
        return woken_by

    def _wait_failed(self, queue: str, error: BaseException) -> None:
        """Report a failed wait, but only once for all waits that a lost server ended: they count as one failure."""
        is_lost = isinstance(error, RedisError | OSError) and (
            not isinstance(error, ResponseError) or connection_is_useless(error)
        )
        if queue in self._queues and not (is_lost and time.monotonic() < self._held_back_until):
            self._failed("wait", queue, error)

    async def _ask_and_take(self, queue: str, woken_by: Message | None) -> Batch | None:
        answer = self._gates.ask()
        if isinstance(answer, Wait):
            await self._wait_for_news(min(answer.seconds, _ASK_AGAIN_SECONDS))
        elif answer.wanted <= 0:
            await self._wait_for_news()
        else:
            return await self._take(queue, answer, woken_by)
        return None

    async def _take(self, queue: str, request: TakeRequest, woken_by: Message | None) -> Batch | None:
        follow_up = self._follow_up(queue, request, woken_by)
        sent_at, token = time.monotonic(), self._next_lease_token()
        self._no_call.clear()
        try:
            taken = await self._moves(queue).take(
                request, token=token, worker=self._name, sent_at=sent_at, follow_up=follow_up
            )
        except (RedisError, OSError) as error:
            self._gates.not_taken()
            if may_have_been_run(error):
                self._on_lost_take(queue, token)
            self._failed("take", queue, error)
            return None
        else:
            outages.worked("take", queue)
            has_room = taken.state in {TakeState.JOBS, TakeState.EMPTY} and len(taken.jobs) < request.wanted
            if follow_up is not None:
                self._go_on_waiting(queue, taken, follow_up, has_room=has_room)
            batch = self._taken(queue, request, taken, sent_at)
            if has_room:
                self._wait_for_messages(self._queues)
            return batch
        finally:
            self._no_call.set()

    def _follow_up(self, queue: str, request: TakeRequest, woken_by: Message | None) -> FollowUp | None:
        """Return what to send behind a take that most likely empties the lists and leaves free slots."""
        if woken_by is None or queue in self._waits or request.wanted <= 1:
            return None
        return self._moves(queue).follow_up(self._claim_of(woken_by[1]), wait_seconds=self._wait_seconds())

    def _go_on_waiting(self, queue: str, taken: Taken, follow_up: FollowUp, *, has_room: bool) -> None:
        """Note the claim that was sent behind a take, and go on with the wait that was sent behind it."""
        for delivery in taken.jobs:
            delivery.claimed = follow_up.claimed
        if not follow_up.is_waiting:
            return
        is_cancelled = self._in_flight.is_closed or queue not in self._queues  # while the take was in progress
        # A worker that is held back, or has no free slot, would wait for messages that others could take at once.
        if is_cancelled or not has_room:
            self._waits.give_up(follow_up)
        else:
            self._waits.start_behind_a_take(queue, follow_up)

    def _taken(self, queue: str, request: TakeRequest, taken: Taken, sent_at: float) -> Batch | None:
        self._gates.took(request, taken)
        self.last_fetch_at = time.monotonic()
        self._backoff_seconds = FIRST_WAIT_SECONDS
        self._clock.sync(taken.server_ms)
        if sum(delivery.is_retry for delivery in taken.jobs) >= request.max_retries:
            self._retries_may_wait.add(queue)  # on a list that cannot be waited on, until a retry in flight ends
        for delivery in taken.jobs:
            self._in_flight.add(delivery)
        if self._in_flight.is_closed or queue not in self._queues:  # since the take was sent
            return Batch(taken.jobs, is_late=True)
        self._in_flight.is_draining = taken.state is TakeState.DRAIN
        if taken.emptied_queue:
            self._empty.add(queue)
        else:
            self._empty.discard(queue)
            self._full_until = sent_at + SPACING_SECONDS
        if taken.wait_ms:
            self._held_back_until = time.monotonic() + min(taken.wait_ms / 1000, _ASK_AGAIN_SECONDS)
        # The other queues come first, but not before a suspect: with their jobs in flight it would never run alone.
        self._queues.remove(queue)
        self._queues.insert(0 if self._in_flight.is_draining else len(self._queues), queue)
        return Batch(taken.jobs, is_late=False) if taken.jobs else None

    def _failed(self, part: str, queue: str, error: BaseException) -> None:
        if not isinstance(error, RedisError | OSError):
            raise error
        self._empty.discard(queue)
        if isinstance(error, ResponseError) and not connection_is_useless(error):
            # The server refused the call: the queue is skipped for a while.
            self._not_before[queue] = time.monotonic() + _REFUSED_SECONDS
        else:
            # The jobs of a lost answer come back when their leases expire. No loop repeats one call here, as in
            # `worker.runtime.retries`: the wait holds the take and the waits of all queues back alike.
            self._held_back_until = time.monotonic() + self._backoff_seconds
            self._backoff_seconds = min(self._backoff_seconds * 2, MAX_WAIT_SECONDS)
        outages.failed(part, error, queue=queue)
