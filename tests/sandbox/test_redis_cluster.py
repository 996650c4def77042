"""The embedded Redis Cluster, with real nodes, on Redis and on Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import AskError, TryAgainError

from sandbox.live_server import ask, wait_for
from sandbox.redis_cluster import RedisCluster
from sandbox.redis_server import RedisServer, RedisServerError
from tests.sandbox.processes import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary

KEY = "{tag}kept"


@pytest.fixture(scope="module")
def cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    """A cluster that the tests of this module share; each leaves it healthy."""
    with RedisCluster(server_binary) as cluster:
        yield cluster
    assert all(has_ended(server.pid) for server in cluster.servers)


def keep(cluster: RedisCluster) -> RedisServer:
    """The owner of a key that a replica has too."""
    owner = cluster.owner(KEY)
    ask(owner, "SET", KEY, "yes")
    cluster.wait_healthy()
    wait_for(lambda: ask(cluster.replicas(owner)[0], "DBSIZE") == 1, "a replica that has the key")
    return owner


def test_three_nodes_own_the_slots_and_each_has_a_replica(cluster: RedisCluster) -> None:
    owners = {cluster.owner(key).port: cluster.owner(key) for key in ("a", "b", "c")}
    assert len(owners) == 3
    assert all(len(cluster.replicas(owner)) == 1 for owner in owners.values())
    assert cluster.addresses.split(",") == [f"127.0.0.1:{server.port}" for server in cluster.servers]


def test_the_replica_takes_over_when_the_owner_of_a_key_is_killed(cluster: RedisCluster) -> None:
    (replica,) = cluster.replicas(keep(cluster))

    killed = cluster.kill_owner(KEY)

    assert not killed.running
    wait_for(lambda: cluster.owner(KEY) is replica, "a new owner")
    wait_for(lambda: ask(replica, "GET", KEY) == "yes", "the key")
    cluster.revive()
    cluster.wait_healthy()
    assert cluster.replicas(replica) == [killed]


def test_a_failover_in_good_order_keeps_the_old_owner_as_replica(cluster: RedisCluster) -> None:
    old = keep(cluster)

    new = cluster.fail_over(KEY)

    assert ask(new, "GET", KEY) == "yes"
    cluster.wait_healthy()
    assert cluster.replicas(new) == [old]


def test_a_slot_moves_key_by_key(cluster: RedisCluster) -> None:
    ask(keep(cluster), "SET", "{tag}other", "yes")

    move = cluster.begin_move(KEY)
    move.move([KEY])

    assert move.keys_left() == [b"{tag}other"]
    with pytest.raises(AskError):
        ask(move.source, "GET", KEY)
    with pytest.raises(TryAgainError):
        ask(move.source, "MGET", KEY, "{tag}other")
    move.finish()
    assert cluster.owner(KEY) is move.target
    assert ask(move.target, "MGET", KEY, "{tag}other") == ["yes", "yes"]
    cluster.wait_healthy()


def test_while_no_node_runs_a_key_has_no_owner() -> None:
    with pytest.raises(RedisServerError, match=r"no node of the cluster owns slot \d+"):
        RedisCluster().owner(KEY)
