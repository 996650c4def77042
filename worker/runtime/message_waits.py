"""Waits for messages on the queues that takes have found empty.

``BLMOVE`` takes one list. The blocking pops that take several remove the message, which would be lost with the worker.
So each queue has a wait and a connection of its own. With several queues the waits are longer, so that their number a
second stays about the same. Jobs on the other lists are found by ``worker.runtime.maintenance``, for all queues at
once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

from worker.observe.outages import outages
from worker.runtime.wait_tasks import WaitTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from worker.broker.follow_up import FollowUp
    from worker.broker.job_moves import JobMoves
    from worker.runtime.consumed_queues import ConsumedQueues
    from worker.runtime.take_delays import TakeDelays

#: The queue of a message, and its bytes.
Message: TypeAlias = tuple[str, bytes]

#: How long the wait for a message lasts with one queue, in seconds. Then a take looks at the other lists.
WAIT_SECONDS = 0.5
#: The longest wait with many queues, in seconds: less than the timeout for an answer of Redis.
_MAX_WAIT_SECONDS = 3.0
#: With many queues a take is sent at least this often, in seconds: readiness expects one in five seconds.
_TAKE_SECONDS = 1.5


class MessageWaits:
    """The waits for messages of one worker.

    Args:
        queues: the queues that jobs are taken from.
        moves: returns the moves of a queue.
        delays: hears of a wait that failed.
        on_end: called when a wait has ended.
    """

    def __init__(
        self,
        queues: ConsumedQueues,
        *,
        moves: Callable[[str], JobMoves],
        delays: TakeDelays,
        on_end: Callable[[], None],
    ) -> None:
        self._queues = queues
        self._moves = moves
        self._delays = delays
        self._tasks = WaitTasks(on_end)

    def __contains__(self, queue: str) -> bool:
        return queue in self._tasks

    @property
    def seconds(self) -> float:
        """How long a wait lasts at most."""
        return min(WAIT_SECONDS * max(1, len(self._queues)), max(WAIT_SECONDS, _MAX_WAIT_SECONDS))

    def start(self, queues: Iterable[str]) -> None:
        """Wait on those of these queues that are empty and have no wait yet."""
        for queue in queues:
            if self._queues.is_empty(queue) and queue not in self._tasks:
                self._tasks.start(queue, self._moves(queue).wait(self.seconds))

    def keep(self, queue: str, follow_up: FollowUp) -> None:
        """Go on with the wait that was sent behind a take."""
        self._tasks.start_behind_a_take(queue, follow_up)

    def give_up(self, follow_up: FollowUp) -> None:
        """Close the connection of a wait that was sent behind a take."""
        self._tasks.give_up(follow_up)

    def stop(self, queue: str) -> None:
        """End the wait for a queue, if there is one, and let the next take try the queue."""
        self._tasks.stop(queue)
        self._queues.look_again(queue)

    def stop_all(self) -> None:
        """End all waits."""
        self._tasks.stop_all()

    async def closed(self) -> None:
        """Return when the connections of all stopped waits are closed."""
        await self._tasks.closed()

    def collect(self, last_take_at: float | None) -> Message | None:
        """Note which waits have ended or failed; return the message that ended one.

        ``last_take_at`` is the monotonic time of the last answer to a take.
        """
        woken_by = None
        # If several waits end without a message, one take is enough: `worker.runtime.maintenance` looks at the other
        # lists.
        is_take_due = len(self._queues) == 1 or last_take_at is None or time.monotonic() - last_take_at > _TAKE_SECONDS
        for queue, task in self._tasks.take_ended():
            was_empty = self._queues.is_empty(queue)
            self._queues.look_again(queue)  # also if it was refused: a full server refuses only the wait
            if task.cancelled():
                continue
            error = task.exception()
            if error is not None:
                self._delays.wait_failed(queue, error)
                continue
            outages.worked("wait", queue)
            if was_empty and (message := task.result()) is not None:
                woken_by = queue, message
            elif was_empty and not is_take_due:
                self._queues.mark_empty(queue)
            elif was_empty:
                is_take_due = False
        return woken_by
