"""What is found out about a server before a worker works on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from sandbox.redis_server import RedisServer
from worker.broker.keys import Keys
from worker.broker.redis_problems import NOT_A_CLUSTER, Unfit
from worker.broker.refusals import ServerIsReadOnlyError
from worker.broker.server_check import Finding, Risk, Unknown, findings, look

if TYPE_CHECKING:
    from sandbox.server_binaries import ServerBinary

#: More than one, so that a server which spreads them says so.
KEYS = Keys("moderation.lock").priority_lists
FIT = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "role": "master",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
}


def found(*, allow_eviction: bool = False, is_cluster: bool = False, **told: Any) -> list[Finding]:
    info = {name: value for name, value in {**FIT, **told}.items() if value is not None}
    return findings(info, allow_eviction=allow_eviction, is_cluster=is_cluster)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"redis_version": "8.2.2"},
        {"redis_version": "10.0.0"},
        {"redis_version": "255.255.255"},
        {"redis_version": 7.2},  # redis-py takes some for numbers
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2", "redis_mode": None},
        {"redis_mode": None, "role": None},
    ],
    ids=str,
)
def test_a_server_as_it_should_be_gives_no_reason_to_speak(told: dict[str, Any]) -> None:
    assert found(**told) == []


@pytest.mark.parametrize("version", ["6.2.14", "6", 6.0, "5.0.7", "2.8.17"])
def test_a_server_that_is_too_old_is_unfit_and_both_versions_are_named(version: object) -> None:
    (finding,) = found(redis_version=version)

    assert isinstance(finding, Unfit)
    assert f"This is Redis {version}, " in finding.problem
    assert "Redis 7 or newer" in finding.problem


@pytest.mark.parametrize("told", [{"redis_mode": "cluster"}, {"redis_mode": None, "server_mode": "cluster"}], ids=str)
def test_a_node_of_a_cluster_is_unfit(told: dict[str, Any]) -> None:
    (finding,) = found(**told)

    assert isinstance(finding, Unfit)
    assert "a node of a Redis Cluster" in finding.problem
    assert found(**told, is_cluster=True) == []


def test_a_sentinel_is_unfit() -> None:
    finding = found(redis_mode="sentinel", maxmemory_policy=None, aof_enabled=None)[0]

    assert isinstance(finding, Unfit)
    assert "there is a sentinel" in finding.problem
    assert "redis+sentinel://" in finding.advice


def test_a_single_server_is_no_cluster() -> None:
    assert found(is_cluster=True) == [NOT_A_CLUSTER]


@pytest.mark.parametrize("maxmemory", [0, 1 << 30])
@pytest.mark.parametrize(
    ("policy", "lost"),
    [
        ("allkeys-lru", "jobs and results"),
        ("allkeys-lfu", "jobs and results"),
        ("allkeys-random", "jobs and results"),
        ("volatile-lru", "the ids of ended jobs"),
        ("volatile-lfu", "the ids of ended jobs"),
        ("volatile-random", "the ids of ended jobs"),
        ("volatile-ttl", "the ids of ended jobs"),
    ],
)
def test_a_server_that_may_evict_is_unfit_unless_that_is_allowed(policy: str, lost: str, maxmemory: int) -> None:
    (refused,) = found(maxmemory_policy=policy, maxmemory=maxmemory)
    (allowed,) = found(maxmemory_policy=policy, maxmemory=maxmemory, allow_eviction=True)

    assert isinstance(refused, Unfit)
    assert f"is {policy}: " in refused.problem
    assert lost in refused.problem
    assert "maxmemory-policy to noeviction, or REDIS_ALLOW_EVICTION to true" in refused.advice
    assert isinstance(allowed, Risk)
    assert allowed.problem == refused.problem


def test_only_eviction_can_be_allowed() -> None:
    kinds = [type(finding) for finding in found(redis_version="6.2", redis_mode="cluster", allow_eviction=True)]

    assert kinds == [Unfit, Unfit]


def test_a_server_without_an_append_only_file_is_a_risk() -> None:
    (finding,) = found(aof_enabled=0)

    assert isinstance(finding, Risk)
    assert "append-only file" in finding.problem
    assert "appendonly to yes" in finding.advice


@pytest.mark.parametrize("name", ["redis_version", "maxmemory_policy", "aof_enabled"])
def test_what_a_server_does_not_tell_is_said(name: str) -> None:
    untold: dict[str, Any] = {name: None}
    (finding,) = found(**untold)

    assert isinstance(finding, Unknown)
    assert name in finding.problem


def test_all_that_is_wrong_is_reported_at_once() -> None:
    assert len(found(redis_version="6.2", redis_mode="cluster", maxmemory_policy="allkeys-lru", aof_enabled=0)) == 4


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"appendonly": "yes"}, []),
        ({}, [Risk]),
        ({"appendonly": "yes", "maxmemory": "1gb", "maxmemory-policy": "volatile-ttl"}, [Unfit]),
        ({"appendonly": "yes", "cluster-enabled": "yes"}, [Unfit]),
        ({"appendonly": "yes", "rename-command": 'INFO ""'}, [Unknown]),
        ({"appendonly": "yes", "rename-command": 'EVAL ""'}, [Unfit]),
        ({"appendonly": "yes", "rename-command": ['INFO ""', 'EVAL ""']}, [Unknown, Unfit]),
    ],
    ids=str,
)
def test_real_servers_tell_all_that_is_looked_at(
    server_binary: ServerBinary, options: dict[str, str], kinds: list[type]
) -> None:
    with RedisServer(server_binary, options) as server, Redis.from_url(server.url) as client:
        answer = look(client, KEYS, allow_eviction=False)

    assert [type(finding) for finding in answer] == kinds


def test_a_replica_is_not_judged(server_binary: ServerBinary) -> None:
    with (
        RedisServer(server_binary, {"replicaof": "127.0.0.1 1"}) as server,
        Redis.from_url(server.url) as client,
        pytest.raises(ServerIsReadOnlyError, match="read only replica"),
    ):
        look(client, KEYS, allow_eviction=False)
