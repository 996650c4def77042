"""Nodes of a cluster that do not say where they are: the error says so, and no worker connects to this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sandbox.live_server import ask
from sandbox.redis_cluster import RedisCluster
from sandbox.redis_server import HOST
from worker.broker.address_resolver import ClusterResolver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary


@pytest.fixture(scope="module")
def cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    """One node."""
    with RedisCluster(server_binary, primaries=1, replicas=0) as found:
        yield found


@pytest.mark.parametrize("kind", ["unknown-endpoint", "hostname"])
@pytest.mark.parametrize("ranges", ["one range of slots", "two ranges of slots"])
def test_a_cluster_that_names_no_hosts_is_told_with_what_to_set(cluster: RedisCluster, kind: str, ranges: str) -> None:
    (node,) = cluster.servers
    resolver = ClusterResolver([(HOST, node.port)], "{mod}.lock", {"db": 0, "credential_provider": None})
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
