"""The embedded primary, replica and sentinels, on Redis and on Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.live_server import ask, wait_for
from sandbox.ping import answers_ping
from sandbox.redis_sentinels import RedisSentinels
from sandbox.redis_server import HOST
from tests.conftest import binary_of
from tests.sandbox.processes import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.redis_server import RedisServer
    from sandbox.server_binaries import ServerBinary


def reaches(sentinels: RedisSentinels, server: RedisServer) -> bool:
    """Whether a client gets an answer."""
    return answers_ping(HOST, sentinels.port_of(server), tls=False)


@pytest.fixture
def sentinels(server_binary: ServerBinary) -> Iterator[RedisSentinels]:
    """A set for each test: after a failover it would take ten seconds until all is well again."""
    with RedisSentinels(server_binary) as sentinels:
        yield sentinels
    assert all(has_ended(server.pid) for server in (*sentinels.servers, *sentinels.sentinels))


def test_a_failover_can_be_ordered(sentinels: RedisSentinels) -> None:
    old = sentinels.primary()

    new = sentinels.fail_over()

    assert new is not old
    assert sentinels.primary() is new
    wait_for(lambda: ask(new, "ROLE")[0] == "master", "a primary")


def test_the_replica_is_promoted_when_the_primary_is_killed(sentinels: RedisSentinels) -> None:
    ask(sentinels.primary(), "SET", "kept", "yes")
    replica = next(server for server in sentinels.servers if server is not sentinels.primary())
    wait_for(lambda: ask(replica, "GET", "kept"), "a replica that has the key")

    killed = sentinels.kill_primary()

    assert not killed.running
    wait_for(lambda: sentinels.primary() is replica, "a new primary")
    wait_for(lambda: ask(replica, "SET", "more", "yes"), "a primary that takes writes")
    assert ask(replica, "GET", "kept") == "yes"
    sentinels.revive()
    assert killed.running


@pytest.mark.parametrize(
    ("name", "with_clients"), [("redis", False), ("valkey", True)], ids=["from its clients too", "with its clients"]
)
def test_a_primary_that_is_cut_off_knows_of_nothing_until_the_network_is_healed(
    name: str, *, with_clients: bool
) -> None:
    with RedisSentinels(binary_of(name), with_network=True) as sentinels:
        sentinel, cut_off = sentinels.sentinels[0], sentinels.cut_off_primary(with_clients=with_clients)

        wait_for(lambda: sentinels.primary() is not cut_off, "a new primary")
        assert ask(cut_off, "ROLE")[0] == "master"
        assert reaches(sentinels, cut_off) == with_clients
        assert reaches(sentinels, sentinel) != with_clients
        sentinels.heal()

        assert reaches(sentinels, cut_off)
        assert reaches(sentinels, sentinel)
