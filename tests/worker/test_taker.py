"""The taker by itself, on a real server: whatever came in its way, the next message is found."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest
from redis import Redis

import worker.taker
from tests.broker.workbench import Workbench, link_to
from tests.worker.parts import flow_of
from worker.broker.moves import Delivery, Wish
from worker.clock import ServerClock
from worker.hands import Hands
from worker.taker import Taker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from worker.broker.moves import Taken

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
            gates=flow_of(hands),
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


class OneRetryAtATime:
    """Gates that let a worker hold one retry, beside whatever is new."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def ask(self) -> Wish:
        most = 1 - self._hands.retries
        return Wish(self._hands.wanted(), len(self._hands), retries_first=most, retries_most=most)

    def took(self, wish: Wish, taken: Taken) -> None:
        pass

    def not_taken(self) -> None:
        pass


async def test_a_retry_that_there_is_no_room_for_yet_is_taken_as_soon_as_there_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that happens on its list ends the wait for a message, and waits for all of these would take too long."""
    monkeypatch.setattr(worker.taker, "WAIT_SECONDS", 2.0)
    scene.hands.limit = 4
    monkeypatch.setattr(scene.taker, "_gates", OneRetryAtATime(scene.hands))
    bench, retries = scene.bench, [str(number) for number in range(10)]
    for ref in retries:
        bench.run("HSET", bench.keys.record_prefix + ref, "raw", "a job", "token", "", "retry", 1)
    bench.run("RPUSH", bench.keys.retries, *retries)
    scene.taker.look()

    async with asyncio.timeout(SECONDS):
        for number in range(1, len(retries)):
            await scene.until_received(number)
            assert len(scene.received) == number
            scene.drop(scene.received[-1])
        await scene.until_received(len(retries))


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

    async def take_and_cancel(wish: Wish, **asked: object) -> object:
        taken = await take(wish, **asked)  # type: ignore[arg-type]
        scene.taker.cancel(QUEUE)
        return taken

    scene.bench.moves.take = take_and_cancel  # type: ignore[method-assign, assignment]
    scene.bench.push(b"a job")

    await until(lambda: scene.handed_back)
    assert scene.received == []
