"""Takes jobs while there is room for them, and waits for the next message while there are none.

The fetcher sends ``take`` (``worker.runtime.takes``) until the lists are empty. Then it waits with ``BLMOVE``
(``worker.runtime.message_waits``), which moves a message from the producers' list to our ``arrived`` list: that wakes
exactly one waiting worker for each message and leaves the message in Redis. Then it sends a take again. It does not
send the take behind the wait, although that would save a round trip: if the connection was lost without notice, the
server would take jobs for a worker that never hears of them, and they would come back only when their leases expire.

It runs on the asyncio loop, where the jobs run. A job that went through Celery's thread would pass from core to core,
and two threads that compete for the interpreter wake each other in vain at every system call. That cost as much CPU as
everything else that a job needs besides its call.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from worker.flow_control.gate_answer import Wait
from worker.runtime.consumed_queues import ConsumedQueues
from worker.runtime.message_waits import MessageWaits
from worker.runtime.take_delays import TakeDelays
from worker.runtime.takes import TakeObserver, Takes

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.job_moves import JobMoves
    from worker.broker.records import Claim, TakeRequest
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import InFlight
    from worker.runtime.takes import Batch

#: What holds takes back is asked again at least this often, in seconds.
_ASK_AGAIN_SECONDS = 1.0


class Gates(TakeObserver, Protocol):
    """Flow control, as the fetcher asks it before each take."""

    def ask(self) -> TakeRequest | Wait:
        """Return what to take now, or how long to wait and why."""


class Fetcher:
    """Takes jobs for one worker from all its queues.

    Args:
        name: the worker's name in Redis.
        moves: returns the moves of a queue.
        in_flight: the jobs in flight; taken jobs are added.
        clock: set to the server's time by each answer.
        gates: this process's flow control.
        next_lease_token: makes a lease token.
        on_lost_take: called with the queue and the lease token of a take whose answer was lost.
        claim_of: returns the claim that a message's job will need as soon as it is taken, if any.

    ``queues`` are those that jobs are taken from; :meth:`consume` and :meth:`cancel` change them.
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
        self.queues = ConsumedQueues()
        self._in_flight = in_flight
        self._gates = gates
        self._wakeup = asyncio.Event()
        self._delays = TakeDelays(self.queues, max_hold_seconds=_ASK_AGAIN_SECONDS)
        self._waits = MessageWaits(self.queues, moves=moves, delays=self._delays, on_end=self._wakeup.set)
        self._takes = Takes(
            name=name, queues=self.queues, waits=self._waits, delays=self._delays, moves=moves, in_flight=in_flight,
            clock=clock, observer=gates, next_lease_token=next_lease_token, on_lost_take=on_lost_take,
            claim_of=claim_of,
        )  # fmt: skip

    @property
    def is_fetching(self) -> bool:
        """True while a take is in progress: cancelling then would strand its jobs until their leases expire."""
        return self._takes.is_under_way

    @property
    def last_fetch_at(self) -> float | None:
        """The time of the last answer to a take, on the monotonic clock; None: there was none yet."""
        return self._takes.last_answer_at

    def consume(self, queue: str) -> None:
        """Take jobs from this queue from now on."""
        if queue not in self.queues:
            self.queues.add(queue)
            self._waits.stop(queue)  # an earlier wait may be on a server that has become a replica
        self.check_queue(queue)

    def cancel(self, queue: str) -> None:
        """Take no more from this queue; jobs of a take in progress are released. See :meth:`cancelled`."""
        self.queues.remove(queue)
        self._waits.stop(queue)
        self._wakeup.set()

    async def cancelled(self) -> None:
        """Return when a take in progress, if any, is answered, and the connections of stopped waits are closed."""
        await self._takes.answered()
        await self._waits.closed()

    def check_queue(self, queue: str) -> None:
        """Look at a queue again: jobs may have become ready on lists that cannot be waited on."""
        self.queues.look_again(queue)
        self._wakeup.set()

    def slots_freed(self) -> None:
        """Look again: there may be free slots."""
        self.queues.look_for_retries()
        self._wakeup.set()

    def gates_changed(self) -> None:
        """Ask the gates again: a permit was given back unused, so they may let more jobs pass."""
        self._delays.end()
        self._wakeup.set()

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
        woken_by = self._waits.collect(self.last_fetch_at)
        now, delays = time.monotonic(), self._delays
        queues = self.queues.usable(now)
        wanted = self._in_flight.free_slots()
        if not queues or wanted <= 0:
            await self._wait_for_change()
        elif now < delays.held_back_until:
            await self._wait_for_change(min(delays.held_back_until - now, _ASK_AGAIN_SECONDS))
        elif now < delays.spaced_until and wanted < self._in_flight.limit - wanted:
            # Soon more slots will be free, and one take fills them all.
            await asyncio.sleep(delays.spaced_until - now)
        elif (queue := self.queues.first_to_take(queues)) is not None:
            message = woken_by[1] if woken_by is not None and woken_by[0] == queue else None
            return await self._ask_and_take(queue, message)
        else:
            self._waits.start(queues)
            await self._wait_for_change()
        return None

    async def _wait_for_change(self, seconds: float = _ASK_AGAIN_SECONDS) -> None:
        # Every change of what `_step` looks at sets the event, and nothing awaits between that look and here.
        self._wakeup.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wakeup.wait()
        except TimeoutError:
            pass

    async def _ask_and_take(self, queue: str, message: bytes | None) -> Batch | None:
        answer = self._gates.ask()
        if isinstance(answer, Wait):
            await self._wait_for_change(min(answer.seconds, _ASK_AGAIN_SECONDS))
        elif answer.wanted <= 0:
            await self._wait_for_change()
        else:
            return await self._takes.send(queue, answer, message)
        return None
