"""A cluster moves a queue's slot to another node, key by key: no script runs meanwhile, and afterwards all go on."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import AskError, TryAgainError

from sandbox.live_server import ask
from sandbox.redis_cluster import RedisCluster
from tests.broker.every_move import MOVES, READS, set_scene
from tests.broker.workbench import RULES, Workbench
from worker.broker.control_moves import Trail
from worker.broker.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.redis_server import RedisServer
    from sandbox.server_binaries import ServerBinary

TAGGED = replace(RULES, fleet=Keys("{mod}.lock"), results="{mod}.results", dead="{mod}.dead")
QUEUE = TAGGED.fleet.queue
TRAIL = Trail("{mod}.control", 1000)
#: No stock Celery worker can take jobs from a cluster, so that nobody can adopt them there.
ON_A_CLUSTER = {name: move for name, move in (MOVES | READS).items() if name != "adopt"}


@pytest.fixture(scope="module")
def cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    with RedisCluster(server_binary, replicas=0) as cluster:
        yield cluster


class _Node:
    """A node, as the blocking side of a workbench sees it."""

    def __init__(self, node: RedisServer, *, is_asking: bool = False) -> None:
        self.client: Any = Redis.from_url(node.url, protocol=2, single_connection_client=True)
        self._is_asking = is_asking

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def execute_command(self, *command: Any) -> Any:
        """Send a command, as a client does that has followed ASK if it ``is_asking``."""
        if self._is_asking:
            self.client.execute_command("ASKING")
        return self.client.execute_command(*command)


class _AsyncNode:
    """The same, as the other side sees it. It connects only once: a worker would wait between its refused commands."""

    def __init__(self, node: _Node) -> None:
        self._node = node

    async def execute_command(self, *command: Any) -> Any:
        return self._node.execute_command(*command)


def at(server: RedisServer, *, is_asking: bool = False) -> Workbench:
    """The queue as that node has it."""
    node: Any = _Node(server, is_asking=is_asking)
    asynchronous: Any = _AsyncNode(node)
    return Workbench(node, asynchronous, TAGGED, QUEUE, TRAIL)


@pytest.fixture
def bench(cluster: RedisCluster) -> Iterator[Workbench]:
    """A queue on the node that owns its slot."""
    bench = at(cluster.owner(QUEUE))
    bench.client.flushall()
    yield bench
    bench.client.close()


@pytest.mark.parametrize("name", ON_A_CLUSTER)
async def test_a_move_runs_on_a_cluster_if_the_names_share_a_hash_tag(bench: Workbench, name: str) -> None:
    scene = await set_scene(bench, name)

    await ON_A_CLUSTER[name](bench, scene)

    assert list(bench.troubles()) == []


async def test_while_some_keys_have_moved_no_script_runs_and_nothing_changes(
    cluster: RedisCluster, bench: Workbench
) -> None:
    # given a queue with something in every place, whose slot is moved to another node
    scene = await set_scene(bench, "release_held")
    move = cluster.begin_move(QUEUE)
    keys = move.keys_left()
    Random(7).shuffle(keys)
    asking = at(move.target, is_asking=True)

    for moved, key in enumerate(keys, start=1):
        move.move([key])
        before = bench.snapshot(), [asking.run("DUMP", key) for key in keys[:moved]]

        # when a script is called, at the old node or where that redirects to
        for run in ON_A_CLUSTER.values():
            with pytest.raises((TryAgainError, AskError)):
                await run(bench, scene)
            with pytest.raises(TryAgainError):
                await run(asking, scene)

        # then it is refused, and nothing has changed at either node
        assert (bench.snapshot(), [asking.run("DUMP", key) for key in keys[:moved]]) == before
        assert ask(move.target, "CLUSTER COUNTKEYSINSLOT", move.slot) == moved

    # and when the slot has its new owner, all go on there
    move.finish()
    new = at(move.target)
    for run in ON_A_CLUSTER.values():
        await run(new, scene)
    assert list(new.troubles()) == []
    new.client.close()
    asking.client.close()
