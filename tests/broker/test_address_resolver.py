"""A cluster's address is resolved in time, without a connection that is left, and what is wrong with nodes is told."""

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
from worker.broker.address_resolver import NODE_TIMEOUT_SECONDS, ClusterResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sandbox.redis_server import RedisServer
    from sandbox.server_binaries import ServerBinary
    from worker.broker.address_resolver import Address


@pytest.fixture(scope="module")
def cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    """One node."""
    with RedisCluster(server_binary, primaries=1, replicas=0) as found:
        yield found


def resolver_that_asks(*nodes: Address, timeout_seconds: float = 5.0) -> ClusterResolver:
    options = {"db": 0, "credential_provider": None}
    return ClusterResolver(nodes, "{mod}.lock", options, timeout_seconds=timeout_seconds)


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
def test_no_connection_stays_open_after_a_resolution_whatever_comes_of_it(
    cluster: RedisCluster, state: Callable[[RedisServer], AbstractContextManager[None]]
) -> None:
    (node,) = cluster.servers
    resolver = resolver_that_asks((HOST, node.port))

    for _ in range(2):  # the second resolution asks the nodes that the first one has found
        with state(node), suppress(RedisError):
            resolver.resolve()

        assert_no_connection_is_left(node)


async def test_no_connection_stays_open_after_a_resolution_that_nobody_waits_for_any_more(
    cluster: RedisCluster,
) -> None:
    (node,) = cluster.servers
    resolver = resolver_that_asks((HOST, node.port))

    with silent(node), pytest.raises(TimeoutError):
        await asyncio.wait_for(resolver.resolve_async(), 0.1)

    await asyncio.to_thread(assert_no_connection_is_left, node)


def test_a_resolver_gives_up_in_time_and_then_begins_with_the_nodes_that_were_not_asked(
    cluster: RedisCluster,
) -> None:
    (node,) = cluster.servers
    with ExitStack() as stack:
        nobody = [stack.enter_context(socket.create_server((HOST, 0))).getsockname() for _ in range(20)]
        resolver = resolver_that_asks(
            nobody[0], (HOST, node.port), *nobody[1:], timeout_seconds=NODE_TIMEOUT_SECONDS + 0.1
        )

        with pytest.raises(RedisConnectionError, match=f"no node of the cluster answers within .*:{nobody[0][1]}: "):
            resolver.resolve()

        assert resolver.resolve() == (HOST, node.port)


@pytest.mark.parametrize("kind", ["unknown-endpoint", "hostname"])
@pytest.mark.parametrize("ranges", ["one range of slots", "two ranges of slots"])
def test_a_cluster_that_names_no_hosts_is_told_with_what_to_set(cluster: RedisCluster, kind: str, ranges: str) -> None:
    (node,) = cluster.servers
    resolver = resolver_that_asks((HOST, node.port))
    assert resolver.resolve() == (HOST, node.port)
    ask(node, "CONFIG SET", "cluster-preferred-endpoint-type", kind)
    if ranges == "two ranges of slots":
        ask(node, "CLUSTER DELSLOTS", 1)

    try:
        with pytest.raises(RedisConnectionError, match="does not say where the node is: let cluster-preferred-endpoi"):
            resolver.resolve()
    finally:
        ask(node, "CONFIG SET", "cluster-preferred-endpoint-type", "ip")
        if ranges == "two ranges of slots":
            ask(node, "CLUSTER ADDSLOTS", 1)
