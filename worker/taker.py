"""Takes jobs while there is room for them, and waits for the next message while there are none.

A job queue is read by turns: ``take`` until the lists are empty; then a ``BLMOVE`` from the producers' list to our
``arrived`` list, which wakes exactly one waiting worker a message and leaves the message in Redis; then again a take.
The take is not sent behind the wait, though that would save a round trip: where the connection was lost without a
word, the server would take jobs for nobody, and they would come back only when their leases are over. But the next wait
is sent behind the take, with the claim of the message that ended the last one (``worker.broker.follow_up``).

Runs on the asyncio side, where the jobs are run: a job that went through Celery's thread would be handed from core to
core, and two threads that want the interpreter at once wake each other in vain at every system call. That cost as much
as all else that a job needs besides its call.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from redis.exceptions import RedisError, ResponseError

from worker.broker.moves import TakeState
from worker.broker.refusals import connection_is_useless, may_have_been_run
from worker.gate import Wait
from worker.observe.outages import outages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from worker.broker.follow_up import FollowUp
    from worker.broker.moves import Claim, Delivery, Moves, Taken, Wish
    from worker.clock import ServerClock
    from worker.hands import Hands

#: The queue of a message, and its bytes.
Message: TypeAlias = tuple[str, bytes]

#: How long one wait for a message lasts, in seconds; after it, take looks at the other lists.
WAIT_SECONDS = 0.5
#: The least time between two takes while there is a backlog and most slots are busy, in seconds.
_SPACING_SECONDS = 0.004
#: How long a queue is left alone after the server refused a call for it, in seconds.
_REFUSED_SECONDS = 1.0
#: How long a closed gate is believed before it is asked again, in seconds.
_ASK_AGAIN_SECONDS = 1.0
#: How long the server is left alone when it cannot be reached, in seconds: at first, and at most.
_AWAY_SECONDS = 0.05
_LONGEST_AWAY_SECONDS = 2.0


class Gates(Protocol):
    """What holds a worker back from taking jobs."""

    def ask(self) -> Wish | Wait:
        """What to take now, or how long to wait and why."""

    def took(self, wish: Wish, taken: Taken) -> None:
        """Told what a take brought."""

    def not_taken(self) -> None:
        """Told that a take failed."""


class Taker:
    """Takes jobs for one worker from all its queues.

    Args:
        name: the worker's name in Redis.
        moves: a queue's moves.
        hands: what the worker holds; taken jobs are added.
        clock: told the server's time.
        gates: this process's gates.
        next_token: makes a lease token.
        receive: given the jobs of a take.
        hand_back: given jobs that nobody wants any more.
        not_heard: told of a take whose answer was lost, with its queue and its lease token.
        claim_of: the claim that a message's job will need as soon as it is taken, if any.
    """

    def __init__(
        self,
        *,
        name: str,
        moves: Callable[[str], Moves],
        hands: Hands,
        clock: ServerClock,
        gates: Gates,
        next_token: Callable[[], str],
        receive: Callable[[Sequence[Delivery]], None],
        hand_back: Callable[[Sequence[Delivery]], None],
        not_heard: Callable[[str, str], None],
        claim_of: Callable[[bytes], Claim | None],
    ) -> None:
        self._name = name
        self._moves = moves
        self._hands = hands
        self._clock = clock
        self._gates = gates
        self._next_token = next_token
        self._receive = receive
        self._hand_back = hand_back
        self._not_heard = not_heard
        self._claim_of = claim_of
        self._queues: list[str] = []
        self._not_before: dict[str, float] = {}
        self._closed_until = self._full_until = 0.0
        self._away_seconds = _AWAY_SECONDS
        self._empty_queues = 0
        self._retries_may_wait = False
        self._news = asyncio.Event()
        self._waiting: tuple[str, asyncio.Task[bytes | None]] | None = None
        self._giving_up: asyncio.Task[None] | None = None
        #: When a take was answered last, on the monotonic clock.
        self.took_at: float | None = None
        #: Whether the answer of a take is on its way. To end in such a moment would leave its jobs to their leases.
        self.is_calling = False

    def consume(self, queue: str) -> None:
        """Take from this queue too."""
        if queue not in self._queues:
            self._queues.append(queue)
        self.look()

    def cancel(self, queue: str) -> None:
        """Take no more from this queue; what is on its way goes back."""
        if queue in self._queues:
            self._queues.remove(queue)
        if self._waiting is not None and self._waiting[0] == queue:
            self._waiting[1].cancel()
        self._news.set()

    def look(self) -> None:
        """Look at all queues again: jobs may have become ready on lists that nobody can wait on."""
        self._empty_queues = 0
        self._news.set()

    def room(self) -> None:
        """Told that there may be room for more jobs."""
        if self._retries_may_wait:
            self._retries_may_wait = False
            self._empty_queues = 0
        self._news.set()

    def gates_changed(self) -> None:
        """Told that what held takes back may not do so any more: a permit came back unused."""
        self._closed_until = self._full_until = 0.0
        self._news.set()

    async def run(self) -> None:
        """Take jobs until the hands are closed."""
        try:
            while not self._hands.is_closed:
                await self._turn()
        finally:
            if self._waiting is not None:
                self._waiting[1].cancel()

    async def _turn(self) -> None:
        """One step: take, or wait for what is in the way."""
        # Of the take that follows at once alone: later, others may have taken the message long ago.
        woken_by = self._look_at_the_wait()
        now = time.monotonic()
        queues = [queue for queue in self._queues if now >= self._not_before.get(queue, now)]
        wanted = self._hands.wanted()
        if not queues or wanted <= 0:
            await self._wait_for_news()
        elif now < self._closed_until:
            await self._wait_for_news(min(self._closed_until - now, _ASK_AGAIN_SECONDS))
        elif now < self._full_until and wanted < len(self._hands):
            # A moment later more slots will be free, and one take fills them all.
            await asyncio.sleep(self._full_until - now)
        elif self._empty_queues >= len(queues):
            await self._wait_for_a_message(queues[0])
        else:
            await self._ask_and_take(queues[0], woken_by)

    async def _wait_for_news(self, seconds: float = _ASK_AGAIN_SECONDS) -> None:
        # Whoever changes what `_turn` looks at sets the event, and nothing awaits between that look and here.
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _wait_for_a_message(self, queue: str) -> None:
        if self._waiting is None:
            self._begin_to_wait(queue, self._moves(queue).wait(WAIT_SECONDS))
        await self._wait_for_news()

    def _begin_to_wait(self, queue: str, wait: Coroutine[Any, Any, bytes | None]) -> asyncio.Task[bytes | None]:
        task = asyncio.create_task(wait)
        task.add_done_callback(lambda _: self._news.set())
        self._waiting = queue, task
        return task

    def _look_at_the_wait(self) -> Message | None:
        """If the wait is over: look for jobs, or say why it failed; returns the message that ended it."""
        if self._waiting is None or not self._waiting[1].done():
            return None
        (queue, task), self._waiting = self._waiting, None
        was_empty = self._empty_queues >= len(self._queues)
        self._empty_queues = 0  # also when it was refused: a full server refuses the wait alone
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed("wait", queue, error)
            return None
        if not task.cancelled():
            outages.worked("wait")
        if was_empty and not task.cancelled() and (message := task.result()) is not None:
            return queue, message
        return None

    async def _ask_and_take(self, queue: str, woken_by: Message | None) -> None:
        answer = self._gates.ask()
        if isinstance(answer, Wait):
            await self._wait_for_news(min(answer.seconds, _ASK_AGAIN_SECONDS))
        elif answer.wanted <= 0:
            await self._wait_for_news()
        else:
            await self._take(queue, answer, woken_by)

    async def _take(self, queue: str, wish: Wish, woken_by: Message | None) -> None:
        follow_up = self._follow_up(queue, wish, woken_by)
        sent_at, token = time.monotonic(), self._next_token()
        self.is_calling = True
        try:
            taken = await self._moves(queue).take(
                wish, token=token, worker=self._name, sent_at=sent_at, follow_up=follow_up
            )
        except (RedisError, OSError) as error:
            self._gates.not_taken()
            if may_have_been_run(error):
                self._not_heard(queue, token)
            self._failed("take", queue, error)
        else:
            outages.worked("take")
            if follow_up is not None:
                self._go_on_waiting(queue, wish, taken, follow_up)
            self._taken(queue, wish, taken, sent_at)
        finally:
            self.is_calling = False

    def _follow_up(self, queue: str, wish: Wish, woken_by: Message | None) -> FollowUp | None:
        """What to send behind a take that follows a wait, and most likely leaves the lists empty and room for more."""
        if woken_by is None or woken_by[0] != queue or self._waiting is not None or wish.wanted <= 1:
            return None
        return self._moves(queue).follow_up(self._claim_of(woken_by[1]), wait_seconds=WAIT_SECONDS)

    def _go_on_waiting(self, queue: str, wish: Wish, taken: Taken, follow_up: FollowUp) -> None:
        """Note what was claimed along with a take, and wait for the wait."""
        for delivery in taken.jobs:
            delivery.claimed = follow_up.claimed
        if not follow_up.is_waiting:
            return
        is_cancelled = self._hands.is_closed or queue not in self._queues  # while the answer was on its way
        # One that is held back, or has its hands full, would wait for messages that others could take at once.
        is_held_back = taken.state not in {TakeState.JOBS, TakeState.EMPTY} or len(taken.jobs) >= wish.wanted
        if is_cancelled or is_held_back:
            self._give_up(follow_up)
        else:
            task = self._begin_to_wait(queue, follow_up.wait())
            task.add_done_callback(lambda _: self._give_up(follow_up))

    def _give_up(self, follow_up: FollowUp) -> None:
        """Close the connection of a wait that nobody waits for; also of a task that was cancelled before it began."""
        if follow_up.is_waiting:
            self._giving_up = asyncio.create_task(follow_up.give_up())

    def _taken(self, queue: str, wish: Wish, taken: Taken, sent_at: float) -> None:
        self._gates.took(wish, taken)
        self.took_at = time.monotonic()
        self._away_seconds = _AWAY_SECONDS
        self._clock.told(taken.server_ms)
        if sum(delivery.is_retry for delivery in taken.jobs) >= wish.retries_most:
            self._retries_may_wait = True  # on a list that nobody can wait on, until one that is in hand has ended
        for delivery in taken.jobs:
            self._hands.add(delivery)
        if self._hands.is_closed or queue not in self._queues:  # cancelled while the answer was on its way
            self._hand_back(taken.jobs)
            return
        self._hands.is_draining = taken.state is TakeState.DRAIN
        if taken.is_all:
            self._empty_queues += 1
        else:
            self._empty_queues = 0
            self._full_until = sent_at + _SPACING_SECONDS
        if taken.wait_ms:
            self._closed_until = time.monotonic() + min(taken.wait_ms / 1000, _ASK_AGAIN_SECONDS)
        self._queues.remove(queue)
        self._queues.append(queue)  # the others first
        if taken.jobs:
            self._receive(taken.jobs)

    def _failed(self, part: str, queue: str, error: BaseException) -> None:
        if not isinstance(error, RedisError | OSError):
            raise error
        self._empty_queues = 0
        if isinstance(error, ResponseError) and not connection_is_useless(error):
            # The server would not: the queue is left alone for a while.
            self._not_before[queue] = time.monotonic() + _REFUSED_SECONDS
        else:  # what a lost answer held comes back when its lease is over
            self._closed_until = time.monotonic() + self._away_seconds
            self._away_seconds = min(self._away_seconds * 2, _LONGEST_AWAY_SECONDS)
        outages.failed(part, error, queue=queue)
