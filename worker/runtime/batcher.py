"""Sends many small moves in one call: what several jobs need from Redis at about the same time goes there together.

A call that fails is made again until Redis has answered it (``worker.runtime.retries``).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from worker.runtime.retries import retry_forever

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: The least time from the start of one call to the start of the next, in seconds: ITEM_SECONDS for each item of the
#: first call, and at most SPACING_SECONDS, which also spaces takes (``worker.runtime.take_delays``). After a quiet time
#: an item goes at once; under load each call carries what came since the last one. A call costs a process far more than
#: one more item in it. 4 ms bounds the calls of each kind to 250 a second. At 2,000 jobs a second a call then carries 8
#: of them, and a job waits 2 ms for it on average, little beside its API call.
ITEM_SECONDS = 0.0005
SPACING_SECONDS = 0.004
#: What one call carries at most.
BATCH_ITEMS = 100
BATCH_BYTES = 1024 * 1024


class Batcher(Generic[Item, Answer]):
    """Collects items and sends them in batches, one call at a time.

    Args:
        what: names the call in the log.
        send: makes the call; one answer for each item, in order.
        queue: whose items these are; as ``what``.
        weigh: an item's size in bytes, about.
        settled: called with each item and its answer.
    """

    def __init__(
        self,
        what: str,
        send: Callable[[Sequence[Item]], Awaitable[list[Answer]]],
        *,
        queue: str,
        weigh: Callable[[Item], int],
        settled: Callable[[Item, Answer], None],
    ) -> None:
        self._what = what
        self._queue = queue
        self._send = send
        self._weigh = weigh
        self._settled = settled
        self._waiting: list[Item] = []
        self._pump: asyncio.Task[None] | None = None
        self._next_call_at = 0.0

    def put(self, item: Item) -> None:
        """Send an item with the next batch."""
        self._waiting.append(item)
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        now = asyncio.get_running_loop().time
        try:
            while self._waiting:
                wait = self._next_call_at - now()
                if wait > 0 and len(self._waiting) < BATCH_ITEMS:
                    await asyncio.sleep(wait)
                batch = self._next_batch()
                self._next_call_at = now() + min(len(batch) * ITEM_SECONDS, SPACING_SECONDS)
                call = partial(self._send, batch)
                answers = await retry_forever(self._what, call, queue=self._queue)
                for item, answer in zip(batch, answers, strict=True):
                    self._settled(item, answer)
        finally:
            self._pump = None

    def _next_batch(self) -> list[Item]:
        size = count = 0
        for item in self._waiting[:BATCH_ITEMS]:
            size += self._weigh(item)
            if count and size > BATCH_BYTES:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch
