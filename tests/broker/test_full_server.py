"""A server without memory refuses producers, but never the moves that end work: else it would never drain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import OutOfMemoryError

from tests.broker.every_move import MOVES, set_scene
from tests.broker.workbench import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.broker.workbench import Workbench


@pytest.fixture
def limit_memory(bench: Workbench) -> Iterator[Callable[[int], None]]:
    """Lets the server use so many bytes; the limit is lifted after the test."""
    old = {name: bench.client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
    bench.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    yield lambda limit: bench.run("CONFIG", "SET", "maxmemory", limit)
    for name, value in old.items():
        bench.run("CONFIG", "SET", name, value)


def is_accepted(bench: Workbench, message: bytes) -> bool:
    """Whether a producer gets its job into the queue."""
    try:
        bench.push(message)
    except OutOfMemoryError:
        return False
    return True


@pytest.mark.parametrize("name", MOVES)
async def test_every_move_passes_on_a_full_server(
    bench: Workbench, limit_memory: Callable[[int], None], name: str
) -> None:
    scene = await set_scene(bench, name)
    before = bench.snapshot()
    limit_memory(1)
    assert not is_accepted(bench, b"a job")

    await MOVES[name](bench, scene)

    assert bench.snapshot() != before


async def test_a_full_server_is_drained_and_takes_new_jobs_again(
    bench: Workbench, limit_memory: Callable[[int], None]
) -> None:
    # given a server that producers filled up
    limit_memory(bench.client.info("memory")["used_memory"] + 3 * 1024 * 1024)
    pushed = 0
    while is_accepted(bench, bytes(10_000)):
        pushed += 1

    # when a worker works
    while jobs := bench.take(50, held=1).jobs:
        await bench.moves.complete([bench.completion(job) for job in jobs])

    # then all that was accepted is done, and there is room again (some servers free memory in the background)
    assert len(bench.events()) == pushed > 100
    wait_until(lambda: is_accepted(bench, b"a job"), "a producer's job to be accepted again")
