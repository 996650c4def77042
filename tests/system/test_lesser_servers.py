"""Servers that have less than Redis, as managed services do, and a server that another one has replaced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandbox.redis_server import RedisServer
from tests.altered_server import ACL_CHECK, without
from tests.cli.terminal import Terminal
from tests.system.lossy_network import LossyNetwork
from tests.system.stage import TOKEN, Stage, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

NAME = "lock-1@test"
#: Lines of ``INFO``, as they stand in the program.
_FIELDS = (
    b"maxmemory_policy:%s",
    b"aof_enabled:%d",
    b"role:%s",
    b"\nused_memory:%",
    b"\nmaxmemory:%",
)


def test_a_server_without_permissions_for_scripts_and_without_fields_of_info_is_worked_for_and_told_of(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    lesser = without(server_binary, tmp_path, ACL_CHECK, *_FIELDS)
    with RedisServer(lesser, {"appendonly": "yes"}) as server, Stage(server.url, tmp_path) as stage:
        worker = stage.worker("-E", "-n", NAME)

        assert stage.outcome_of(stage.send()) == "locked"
        stage.push("junk")
        stage.wait_events(2)
        assert stage.producer.control.inspect(destination=[NAME], timeout=10).ping() == {NAME: {"ok": "pong"}}
        told = [line["problem"] for line in worker.lines("redis_not_checked")]
        assert len(told) == 2
        assert "maxmemory_policy, aof_enabled" in told[0]
        assert "redis.acl_check_cmd" in told[1]

        shell = Terminal({"REDIS_URL": server.url, "API_TOKEN": TOKEN, "API_URL": stage.api.url}, tmp_path)
        for command in (("status",), ("audit",), ("dead",)):
            ended = shell.run(*command)
            assert ended.returncode == 0, ended.stderr
        doctor = json.loads(shell.run("doctor", "--json").stdout)
        found = {check["name"]: check["level"] for check in doctor["checks"]}
        assert "redis_permissions" not in found
        assert found["redis_server"] == "warning"
        assert worker.stop() == 0


def test_a_server_that_replaces_another_at_its_address_is_judged_when_the_worker_comes_to_it(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with (
        RedisServer(server_binary, {"appendonly": "yes"}) as old,
        RedisServer(server_binary, {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}) as new,
        LossyNetwork(old.port) as network,
        Stage(new.url, tmp_path) as stage,
    ):
        worker = stage.worker(REDIS_URL=f"redis://127.0.0.1:{network.port}/0")
        eventually(lambda: worker.lines("worker_started"), "a worker")
        assert not worker.lines("redis_may_lose_data")
        network.lead_to(new.port)
        old.kill()

        assert stage.outcome_of(stage.send()) == "locked"
        told = eventually(
            lambda: len(lines := worker.lines("redis_may_lose_data")) == 2 and lines, "what the new server lacks"
        )
        assert "allkeys-lru" in told[0]["problem"]
        assert "append-only file" in told[1]["problem"]
        assert worker.stop() == 0
