"""Many small moves in one call: batches, their order and their limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.runtime import batcher
from worker.runtime.batcher import BATCH_BYTES, BATCH_ITEMS, Batcher

if TYPE_CHECKING:
    from collections.abc import Sequence


class Server:
    """Answers each item with its double; what it is asked is kept, and it can be made to fail, or to take its time."""

    def __init__(self, *troubles: Exception) -> None:
        self.batches: list[list[int]] = []
        self.troubles = list(troubles)
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def send(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.was_asked.set()
        await self.may_answer.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        return [2 * item for item in items]


class Counter:
    """Settled items and their answers, in order."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, int]] = []
        self._changed = asyncio.Event()

    def __call__(self, item: int, answer: int) -> None:
        self.settled.append((item, answer))
        self._changed.set()

    async def wait(self, count: int) -> list[tuple[int, int]]:
        async with asyncio.timeout(10):
            while len(self.settled) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.settled


def batcher_for(server: Server, settled: Counter, *, weight: int = 1) -> Batcher[int, int]:
    return Batcher("double", server.send, queue="a queue", weigh=lambda _: weight, settled=settled)


async def test_what_comes_in_one_moment_goes_in_one_call_and_each_item_gets_its_answer() -> None:
    server, settled = Server(), Counter()
    double = batcher_for(server, settled)

    for item in range(5):
        double.put(item)

    assert await settled.wait(5) == [(item, 2 * item) for item in range(5)]
    assert server.batches == [[0, 1, 2, 3, 4]]


async def test_what_comes_during_a_call_waits_for_its_end_and_goes_together() -> None:
    server, settled = Server(), Counter()
    double = batcher_for(server, settled)
    server.may_answer.clear()
    double.put(1)
    await server.was_asked.wait()

    double.put(2)
    double.put(3)
    await asyncio.sleep(0)
    assert server.batches == [[1]]
    server.may_answer.set()

    assert [item for item, _ in await settled.wait(3)] == [1, 2, 3]
    assert server.batches == [[1], [2, 3]]


async def test_the_more_a_call_carried_the_longer_the_next_one_waits_for_more_up_to_a_limit(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "ITEM_SECONDS", 100)
    monkeypatch.setattr(batcher, "SPACING_SECONDS", 450)
    server, settled = Server(), Counter()
    double = batcher_for(server, settled)
    done = 0
    for items in (1, 3, 20, 1):
        for item in range(items):
            double.put(item)
        done += items
        await settled.wait(done)

    # a quiet moment before the first; then a little less than is due, as a little of it has passed
    assert [round(wait, -1) for wait in waits] == [100, 300, 450]


async def test_a_call_carries_a_bounded_number_of_items() -> None:
    server, settled = Server(), Counter()
    double = batcher_for(server, settled)

    for item in range(2 * BATCH_ITEMS + 1):
        double.put(item)

    await settled.wait(2 * BATCH_ITEMS + 1)
    assert [len(batch) for batch in server.batches] == [BATCH_ITEMS, BATCH_ITEMS, 1]


@pytest.mark.parametrize(("weight", "batches"), [(BATCH_BYTES // 2, [2, 2, 1]), (3 * BATCH_BYTES, [1, 1, 1, 1, 1])])
async def test_a_call_carries_a_bounded_number_of_bytes_but_at_least_one_item(weight: int, batches: list[int]) -> None:
    server, settled = Server(), Counter()
    double = batcher_for(server, settled, weight=weight)

    for item in range(5):
        double.put(item)

    await settled.wait(5)
    assert [len(batch) for batch in server.batches] == batches


async def test_a_batcher_that_was_idle_begins_again() -> None:
    server, settled = Server(), Counter()
    double = batcher_for(server, settled)
    double.put(1)
    await settled.wait(1)
    await asyncio.sleep(0)

    double.put(2)

    assert await settled.wait(2) == [(1, 2), (2, 4)]


async def test_a_call_that_fails_is_made_again_with_the_same_items_until_it_is_answered(waits: list[float]) -> None:
    server, settled = Server(RedisConnectionError("gone"), OSError("reset"), RedisConnectionError("gone")), Counter()
    double = batcher_for(server, settled)

    double.put(7)

    assert await settled.wait(1) == [(7, 14)]
    assert server.batches == [[7]] * 4
    assert waits == [0.05, 0.1, 0.2]
