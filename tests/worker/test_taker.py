"""The taker by itself, on a real server: whatever came in its way, the next message is found."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.broker.workbench import Workbench, link_to
from worker.broker.moves import Delivery
from worker.clock import ServerClock
from worker.flow.flow import Flow
from worker.hands import Hands
from worker.taker import Taker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

QUEUE = "moderation.lock"
SECONDS = 10.0


class Scene:
    """A taker that runs, the queue it takes from, and what it received."""

    def __init__(self, bench: Workbench, hands: Hands) -> None:
        self.bench = bench
        self.hands = hands
        self.received: list[Delivery] = []
        self.handed_back: list[Delivery] = []
        tokens = count(1)
        self.taker = Taker(
            name="w", moves=lambda _: bench.moves, hands=hands, clock=ServerClock(),
            gates=Flow(hands, failures=0, is_rate_limited=False, pause=lambda _: None),
            next_token=lambda: f"t.{next(tokens)}", receive=self.receive, hand_back=self.handed_back.extend,
            read_only=lambda _: None,
        )  # fmt: skip

    def receive(self, deliveries: Sequence[Delivery]) -> None:
        self.received.extend(deliveries)

    def drop(self, delivery: Delivery) -> None:
        """The job has left the hands."""
        self.hands.drop(delivery)
        self.taker.room()

    async def until_received(self, number: int) -> None:
        await until(lambda: len(self.received) >= number)

    async def until_it_waits(self) -> None:
        await until(lambda: self.bench.client.info("clients")["blocked_clients"])

    async def until_nobody_waits(self) -> None:
        await until(lambda: not self.bench.client.info("clients")["blocked_clients"])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for is in Redis
            await asyncio.sleep(0.005)


@pytest.fixture
async def scene(redis_url: str) -> AsyncIterator[Scene]:
    link = link_to(redis_url, timeout_seconds=5)
    with Redis.from_url(redis_url, protocol=2) as client:
        found = Scene(Workbench(client, link), Hands(1))
        found.taker.consume(QUEUE)
        running = asyncio.create_task(found.taker.run())
        yield found
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    await link.disconnect()


async def test_a_message_that_comes_while_it_waits_is_taken(scene: Scene) -> None:
    await scene.until_it_waits()

    scene.bench.push(b"a job")

    await scene.until_received(1)


async def test_a_wait_that_ended_while_the_hands_were_full_does_not_hide_the_next_message(scene: Scene) -> None:
    await scene.until_it_waits()
    other = Delivery(
        ref="poisoned", token="t", raw=b"", size=0, first_ms=0, calls=0, crashes=5, held_until=0, queue=QUEUE
    )
    scene.hands.add(other)  # as the upkeep does
    scene.taker.room()
    await scene.until_nobody_waits()

    scene.drop(other)
    scene.bench.push(b"a job")

    await scene.until_received(1)


async def test_jobs_that_became_ready_are_taken_though_a_wait_is_under_way(scene: Scene) -> None:
    scene.bench.push(b"a job")
    await scene.until_received(1)
    (job,) = scene.received
    scene.drop(job)
    await scene.until_it_waits()

    await scene.bench.moves.release([job])
    scene.taker.look()

    await scene.until_received(2)


async def test_no_job_is_taken_beyond_the_free_slots(scene: Scene) -> None:
    scene.bench.push(b"first", b"second")
    await scene.until_received(1)
    assert [job.raw for job in scene.received] == [b"first"]
    assert scene.bench.run("LLEN", QUEUE) == 1

    scene.drop(scene.received[0])
    await scene.until_received(2)


async def test_what_is_on_its_way_from_a_queue_that_was_cancelled_goes_back(scene: Scene) -> None:
    await scene.until_it_waits()
    take = scene.bench.moves.take

    async def take_and_cancel(**asked: object) -> object:
        taken = await take(**asked)  # type: ignore[arg-type]
        scene.taker.cancel(QUEUE)
        return taken

    scene.bench.moves.take = take_and_cancel  # type: ignore[method-assign, assignment]
    scene.bench.push(b"a job")

    await until(lambda: scene.handed_back)
    assert scene.received == []
