"""register: which workers there are, how they are set, and which queues they took from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from worker.broker.move_limits import WORKER_MS

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

QUEUE = "moderation.lock"


def told(worker: str) -> str:
    return json.dumps({"node": worker, "queues": [QUEUE]})


async def test_workers_hear_of_those_that_are_set_otherwise_and_of_no_others(bench: Workbench) -> None:
    assert await bench.fleet.register("one", "alike", told("one")) == []
    assert await bench.fleet.register("two", "alike", told("two")) == []

    assert sorted(await bench.fleet.register("three", "otherwise", told("three"))) == [
        ("one", told("one").encode()),
        ("two", told("two").encode()),
    ]
    assert await bench.fleet.register("one", "alike", told("one")) == [("three", told("three").encode())]


async def test_a_worker_that_tells_nothing_more_is_forgotten(bench: Workbench) -> None:
    now = bench.now_ms()
    bench.run(
        "HSET", bench.keys.workers, "dead", f"{now - WORKER_MS - 1} otherwise x", "nonsense", "a word",
        "of tomorrow", f"{now + WORKER_MS * 2} otherwise x", "too long", f"{'9' * 5000} otherwise x",
        "recent", f"{now - 1000} otherwise I am here",
    )  # fmt: skip

    assert await bench.fleet.register("one", "alike", told("one")) == [("recent", b"I am here")]

    assert set(bench.client.hkeys(bench.keys.workers)) == {b"recent", b"one"}
    assert 0 < bench.run("PTTL", bench.keys.workers) <= WORKER_MS


async def test_a_worker_that_leaves_is_forgotten_at_once_and_its_queues_are_not(bench: Workbench) -> None:
    await bench.fleet.register("one", "alike", told("one"))

    await bench.fleet.register("one", "", "")

    assert bench.client.exists(bench.keys.workers) == 0
    assert bench.client.zrange(bench.keys.queues, 0, -1) == [QUEUE.encode()]


async def test_the_latest_queues_are_remembered_and_not_ever_more(bench: Workbench) -> None:
    for number in range(300):
        bench.run("ZADD", bench.keys.queues, number, f"queue-{number}")

    await bench.fleet.register("one", "alike", told("one"))

    found = bench.client.zrange(bench.keys.queues, 0, -1)
    assert len(found) == 200
    assert found[-2:] == [b"queue-299", QUEUE.encode()]


async def test_one_worker_hears_of_a_bounded_number_of_others(bench: Workbench) -> None:
    for number in range(50):
        await bench.fleet.register(f"worker-{number}", f"otherwise-{number}", told("x"))

    assert len(await bench.fleet.register("one", "alike", told("one"))) == 20
