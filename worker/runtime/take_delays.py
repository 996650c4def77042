"""How long a worker sends no take: flow control holds it back, a take was full just now, or Redis failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError, ResponseError

from worker.broker.refusals import connection_is_useless
from worker.observe.outages import outages
from worker.runtime.batcher import SPACING_SECONDS
from worker.runtime.retries import FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from worker.runtime.consumed_queues import ConsumedQueues

#: How long a queue is skipped after the server refused a call for it, in seconds.
_REFUSED_SECONDS = 1.0


class TakeDelays:
    """The delays before the next take of a worker.

    Args:
        queues: the queues that jobs are taken from; one that Redis refuses is skipped for a while.
        max_hold_seconds: the longest that a pause or the rate limit is believed before Redis is asked again.
    """

    def __init__(self, queues: ConsumedQueues, *, max_hold_seconds: float) -> None:
        self._queues = queues
        self._max_hold_seconds = max_hold_seconds
        #: The monotonic time until which no take is sent.
        self.held_back_until = 0.0
        #: The monotonic time until which no take is sent while few slots are free: soon one take fills more of them.
        self.spaced_until = 0.0
        self.backoff_seconds = FIRST_WAIT_SECONDS

    def end(self) -> None:
        """Let the next take be sent at once."""
        self.held_back_until = self.spaced_until = 0.0

    def answered(self) -> None:
        """Note that Redis answered a take: the next failure is the first of its outage."""
        self.backoff_seconds = FIRST_WAIT_SECONDS

    def hold_back(self, seconds: float) -> None:
        """Send no take while a pause or the rate limit in Redis holds jobs back, for so many seconds."""
        self.held_back_until = time.monotonic() + min(seconds, self._max_hold_seconds)

    def space(self, sent_at: float) -> None:
        """Keep some distance to a take that was sent then and left jobs behind."""
        self.spaced_until = sent_at + SPACING_SECONDS

    def wait_failed(self, queue: str, error: BaseException) -> None:
        """Note a failed wait for a message.

        All waits that a lost server ended count as one failure, and are reported once.
        """
        is_lost = isinstance(error, RedisError | OSError) and (
            not isinstance(error, ResponseError) or connection_is_useless(error)
        )
        if queue in self._queues and not (is_lost and time.monotonic() < self.held_back_until):
            self.failed("wait", queue, error)

    def failed(self, part: str, queue: str, error: BaseException) -> None:
        """Note a failed call to Redis, and report it.

        Args:
            part: names the call in the log of outages.
            queue: whose call it was.
            error: why it failed.

        Raises:
            BaseException: the error, where it is none of Redis or the network.
        """
        if not isinstance(error, RedisError | OSError):
            raise error
        self._queues.look_again(queue)
        if isinstance(error, ResponseError) and not connection_is_useless(error):
            # The server refused the call: the queue is skipped for a while.
            self._queues.skip(queue, time.monotonic() + _REFUSED_SECONDS)
        else:
            # The jobs of a lost answer come back when their leases expire. No loop repeats one call here, as in
            # `worker.runtime.retries`: the delay holds the take and the waits of all queues back alike.
            self.held_back_until = time.monotonic() + self.backoff_seconds
            self.backoff_seconds = min(self.backoff_seconds * 2, MAX_WAIT_SECONDS)
        outages.failed(part, error, queue=queue)
