"""A server that takes no writes, a replica or a primary cut off from its replicas, has nothing changed half way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ReadOnlyError, ResponseError

from tests.broker.every_move import MOVES, set_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.broker.workbench import Workbench


@pytest.fixture
def demote(bench: Workbench) -> Iterator[Callable[[], None]]:
    """Makes the server a read-only replica (of nobody, it keeps its data) until the test is over."""
    yield lambda: bench.run("REPLICAOF", "127.0.0.1", "1")
    bench.run("REPLICAOF", "NO", "ONE")


@pytest.fixture
def cut_off(bench: Workbench) -> Iterator[Callable[[], None]]:
    """Makes the server ask for a replica that is not there, until the test is over."""
    yield lambda: bench.run("CONFIG", "SET", "min-replicas-to-write", 1)
    bench.run("CONFIG", "SET", "min-replicas-to-write", 0)


@pytest.mark.parametrize("name", MOVES)
async def test_a_replica_refuses_every_move_and_nothing_changes(
    bench: Workbench, demote: Callable[[], None], name: str
) -> None:
    scene = await set_scene(bench, name)
    before = bench.snapshot()
    demote()

    with pytest.raises(ReadOnlyError):
        await MOVES[name](bench, scene)

    assert bench.snapshot() == before


@pytest.mark.parametrize("name", MOVES)
async def test_a_primary_without_its_replicas_refuses_every_move_and_nothing_changes(
    bench: Workbench, cut_off: Callable[[], None], name: str
) -> None:
    scene = await set_scene(bench, name)
    before = bench.snapshot()
    cut_off()

    with pytest.raises(ResponseError, match="NOREPLICAS"):
        await MOVES[name](bench, scene)

    assert bench.snapshot() == before
