"""The search for the owner of a slot: it ends in time, leaves nothing open, and says what is wrong with the nodes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from sandbox.live_server import ask, wait_for
from sandbox.redis_cluster import SLOTS, RedisCluster
from sandbox.redis_server import HOST
from worker.broker.endpoint import ASK_SECONDS, OwnerOfSlot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sandbox.redis_server import RedisServer
    from sandbox.server_binaries import ServerBinary
    from worker.broker.endpoint import Address


@pytest.fixture(scope="module")
def cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    """One node."""
    with RedisCluster(server_binary, primaries=1, replicas=0) as found:
        yield found


def owner_of_slot(*nodes: Address, seconds: float = 5.0) -> OwnerOfSlot:
    return OwnerOfSlot(nodes, "{mod}.lock", {"db": 0, "credential_provider": None}, seconds=seconds)


@contextmanager
def well(_: RedisServer) -> Iterator[None]:
    """A node that answers."""
    yield


@contextmanager
def without_slots(node: RedisServer) -> Iterator[None]:
    """A node of a cluster in which no node has a slot."""
    ask(node, "CLUSTER FLUSHSLOTS")
    yield
    ask(node, "CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)


@contextmanager
def refusing(node: RedisServer) -> Iterator[None]:
    """A node that does not permit the question."""
    ask(node, "ACL SETUSER default -cluster")
    yield
    ask(node, "ACL SETUSER default +cluster")


@contextmanager
def silent(node: RedisServer) -> Iterator[None]:
    """A node that does not answer."""
    node.pause()
    yield
    node.resume()


def assert_no_connection_is_left(node: RedisServer) -> None:
    """The node knows no client but the one that asks this."""
    wait_for(lambda: int(ask(node, "INFO", "clients")["connected_clients"]) == 1, "connections that are closed")


@pytest.mark.parametrize("state", [well, without_slots, refusing, silent])
def test_no_connection_stays_open_after_a_search_whatever_comes_of_it(
    cluster: RedisCluster, state: Callable[[RedisServer], AbstractContextManager[None]]
) -> None:
    (node,) = cluster.servers
    owner = owner_of_slot((HOST, node.port))

    for _ in range(2):  # the second search asks the nodes that the first one has found
        with state(node), suppress(RedisError):
            owner.address()

        assert_no_connection_is_left(node)


async def test_no_connection_stays_open_after_a_search_that_nobody_waits_for_any_more(cluster: RedisCluster) -> None:
    (node,) = cluster.servers
    owner = owner_of_slot((HOST, node.port))

    with silent(node), pytest.raises(TimeoutError):
        await asyncio.wait_for(owner.locate(), 0.1)

    await asyncio.to_thread(assert_no_connection_is_left, node)


def test_a_search_gives_up_in_time_and_the_next_one_begins_with_the_nodes_that_were_not_asked(
    cluster: RedisCluster,
) -> None:
    (node,) = cluster.servers
    with ExitStack() as stack:
        nobody = [stack.enter_context(socket.create_server((HOST, 0))).getsockname() for _ in range(20)]
        owner = owner_of_slot(nobody[0], (HOST, node.port), *nobody[1:], seconds=ASK_SECONDS + 0.1)

        with pytest.raises(RedisConnectionError, match=f"no node of the cluster answers within .*:{nobody[0][1]}: "):
            owner.address()

        assert owner.address() == (HOST, node.port)


@pytest.mark.parametrize("kind", ["unknown-endpoint", "hostname"])
@pytest.mark.parametrize("ranges", ["one range of slots", "two ranges of slots"])
def test_a_cluster_that_names_no_hosts_is_told_with_what_to_set(cluster: RedisCluster, kind: str, ranges: str) -> None:
    (node,) = cluster.servers
    owner = owner_of_slot((HOST, node.port))
    assert owner.address() == (HOST, node.port)
    ask(node, "CONFIG SET", "cluster-preferred-endpoint-type", kind)
    if ranges == "two ranges of slots":
        ask(node, "CLUSTER DELSLOTS", 1)

    try:
        with pytest.raises(RedisConnectionError, match="does not say where the node is: let cluster-preferred-endpoi"):
            owner.address()
    finally:
        ask(node, "CONFIG SET", "cluster-preferred-endpoint-type", "ip")
        if ranges == "two ranges of slots":
            ask(node, "CLUSTER ADDSLOTS", 1)
