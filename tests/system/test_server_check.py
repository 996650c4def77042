"""A worker looks at its server before it takes a job from it: it ends, warns, or waits, and says why."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from tests.system.lossy_network import LossyNetwork
from tests.system.stage import QUEUE, Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

DURABLE = {"appendonly": "yes"}
EVICTING = {**DURABLE, "maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}
PASSWORD = "the-password"
KEYS_TO_LOAD = 2000


def assert_it_ended_without_a_job(worker: WorkerProcess, stage: Stage) -> None:
    assert worker.process.wait(20) == 1
    assert stage.redis.llen(QUEUE) == 1
    assert stage.api.calls() == []
    assert "Traceback" not in worker.log


# The servers name their mode differently, so this runs on both.
@pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param(EVICTING, "maxmemory-policy of Redis is allkeys-lru", id="eviction"),
        pytest.param({"cluster-enabled": "yes"}, "a node of a Redis Cluster", id="cluster"),
    ],
)
def test_a_server_that_is_unfit_ends_the_worker_before_it_takes_a_job(
    server_binary: ServerBinary, tmp_path: Path, options: dict[str, str], problem: str
) -> None:
    with (
        RedisServer(server_binary, {**options, "requirepass": PASSWORD}) as server,
        Stage(server.url, tmp_path) as stage,
    ):
        if "cluster-enabled" in options:
            stage.redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: stage.redis.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "a cluster")
        stage.push("a job")

        worker = stage.start()

        assert_it_ended_without_a_job(worker, stage)
        (line,) = worker.lines("redis_unfit")
        assert problem in line["problem"]
        assert line["advice"]
        assert line["level"] == "error"
        assert " ready." not in worker.log
        assert PASSWORD not in worker.log


def start_as(stage: Stage, server: RedisServer, *rules: str, database: int = 0) -> WorkerProcess:
    """A worker that logs in as a user with these rules, beside those of the default user."""
    stage.redis.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", "&*", "+@all", *rules)
    return stage.start(REDIS_URL=f"redis://app:{PASSWORD}@127.0.0.1:{server.port}/{database}")


def assert_it_ended_with(worker: WorkerProcess, problem: str) -> None:
    assert worker.process.wait(20) == 1
    (line,) = worker.lines("redis_unfit")
    assert problem in line["problem"]
    assert line["advice"]
    assert " ready." not in worker.log
    assert "Traceback" not in worker.log
    assert PASSWORD not in worker.log


# What each server says of it differs.
@pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)
@pytest.mark.parametrize(
    ("options", "rules", "database", "problem"),
    [
        pytest.param({"cluster-enabled": "yes"}, (), 1, "Redis Cluster", id="database 1 of a cluster"),
        pytest.param({"cluster-enabled": "yes"}, ("-info",), 0, "spreads keys", id="CROSSSLOT"),
        pytest.param({"databases": 2}, (), 7, "does not have the database", id="no such database"),
        pytest.param({"rename-command": 'EVAL ""'}, (), 0, "does not run Lua scripts", id="no EVAL"),
        pytest.param({}, ("-eval",), 0, "access control list", id="no permission for scripts"),
        pytest.param({}, ("resetkeys", "~moderation.lock"), 0, "access control list", id="no permission for keys"),
        pytest.param({}, ("resetpass", ">another"), 0, "user and password", id="wrong password"),
        pytest.param({}, ("off",), 0, "user and password", id="a user that is switched off"),
    ],
)
def test_what_waiting_never_mends_ends_the_start_with_a_sentence(
    server_binary: ServerBinary,
    tmp_path: Path,
    *,
    options: dict[str, str],
    rules: tuple[str, ...],
    database: int,
    problem: str,
) -> None:
    with RedisServer(server_binary, {**DURABLE, **options}) as server, Stage(server.url, tmp_path) as stage:
        if "cluster-enabled" in options:
            stage.redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: stage.redis.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "a cluster")

        assert_it_ended_with(start_as(stage, server, *rules, database=database), problem)


def test_a_password_for_a_server_that_asks_for_one_and_gets_none_ends_the_start(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary, {"requirepass": PASSWORD}) as server, Stage(server.url, tmp_path) as stage:
        worker = stage.start(REDIS_URL=f"redis://127.0.0.1:{server.port}/0")

        assert_it_ended_with(worker, "user and password")


@contextmanager
def greets_with(banner: bytes) -> Iterator[int]:
    """A port of a server that is something else."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client:
                    client.sendall(banner)
                    client.recv(1024)

        thread = threading.Thread(target=accept)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "banner", [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", b"SSH-2.0-OpenSSH\r\n"], ids=["http", "ssh"]
)
def test_a_server_that_is_something_else_ends_the_start(stage: Stage, banner: bytes) -> None:
    with greets_with(banner) as port:
        worker = stage.start(REDIS_URL=f"redis://127.0.0.1:{port}/0")

        assert_it_ended_with(worker, "does not speak the protocol")


def test_an_address_that_leads_to_a_cluster_for_a_while_is_reported_once_and_the_worker_goes_on_afterwards(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with (
        RedisServer(server_binary, DURABLE) as server,
        RedisServer(server_binary, {**DURABLE, "cluster-enabled": "yes"}) as cluster,
        LossyNetwork(server.port) as network,
        Stage(server.url, tmp_path) as stage,
    ):
        worker = stage.worker(REDIS_URL=f"redis://127.0.0.1:{network.port}/0")
        network.lead_to(cluster.port)
        cut_all_connections(stage)

        eventually(lambda: "a Redis Cluster" in worker.log or "cluster mode" in worker.log, "a line that tells why")
        job = stage.send()
        network.lead_to(server.port)

        assert stage.event_of(job)["data"]["outcome"] == "locked"
        assert len(worker.lines("redis_unavailable")) == 1
        assert worker.stop() == 0


def test_a_server_that_may_evict_can_be_allowed(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary, EVICTING) as server, Stage(server.url, tmp_path) as stage:
        worker = stage.worker(REDIS_ALLOW_EVICTION="true")

        assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
        (line,) = worker.lines("redis_may_lose_data")
        assert "allkeys-lru" in line["problem"]
        assert worker.stop() == 0


def test_an_unfit_server_that_comes_late_ends_the_worker_all_the_same(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    server = RedisServer(server_binary, EVICTING)
    server.port = free_port("127.0.0.1")
    with Stage(server.url, tmp_path) as stage:
        worker = stage.start()
        eventually(lambda: worker.lines("redis_unavailable"), "a line that tells that it waits")
        with server:
            stage.push("a job")

            assert_it_ended_without_a_job(worker, stage)
            assert len(worker.lines("redis_unfit")) == 1


def cut_all_connections(stage: Stage) -> None:
    for kind in ("normal", "pubsub"):
        stage.redis.client_kill_filter(_type=kind, skipme=True)


def make_celery_connect_again(stage: Stage, worker: WorkerProcess) -> None:
    """Cut all connections until Celery's was among them: just after the start it may not listen on one yet."""

    def has_cut() -> bool:
        cut_all_connections(stage)
        with suppress(AssertionError):
            return bool(eventually(lambda: worker.log.count("Connected to ") >= 2, "another connection", seconds=2))
        return False

    eventually(has_cut, "another connection of Celery's")


@pytest.mark.parametrize(("options", "warnings"), [({}, 1), (DURABLE, 0)])
def test_a_server_without_an_append_only_file_is_reported_once_and_used(
    server_binary: ServerBinary, tmp_path: Path, options: dict[str, str], warnings: int
) -> None:
    with RedisServer(server_binary, options) as server, Stage(server.url, tmp_path) as stage:
        worker = stage.worker()
        make_celery_connect_again(stage, worker)

        assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
        assert [line["level"] for line in worker.lines("redis_may_lose_data")] == ["warning"] * warnings
        assert not worker.lines("redis_not_checked")


def test_a_server_that_cannot_be_looked_at_is_reported_once_and_used(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary, EVICTING) as server, Stage(server.url, tmp_path) as stage:
        stage.redis.execute_command("ACL", "SETUSER", "blind", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-info")
        worker = stage.worker(REDIS_URL=server.url.replace("//", f"//blind:{PASSWORD}@"))
        make_celery_connect_again(stage, worker)

        assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
        (line,) = worker.lines("redis_not_checked")
        assert "permission" in line["problem"]
        assert "INFO" in line["advice"]
        assert PASSWORD not in worker.log


@contextmanager
def cut_at_the_first_look(server_port: int) -> Iterator[int]:
    """A port that leads to the server, but cuts the first connection that asks for INFO."""
    is_cut = threading.Event()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with source, target:
            while data := source.recv(65_536):
                if b"\r\nINFO\r\n" in data and not is_cut.is_set():
                    is_cut.set()
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)

    def quietly(source: socket.socket, target: socket.socket) -> None:
        try:
            pump(source, target)
        except OSError:  # the other direction is over
            return

    def accept(listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", server_port))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=quietly, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, args=(listening,), daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert is_cut.is_set()


def test_a_connection_lost_in_the_look_is_reported_and_the_next_one_looks(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with (
        RedisServer(server_binary) as server,
        Stage(server.url, tmp_path) as stage,
        cut_at_the_first_look(server.port) as port,
    ):
        worker = stage.worker(REDIS_URL=f"redis://127.0.0.1:{port}/0")

        assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
        assert len(worker.lines("redis_unavailable")) == 1
        assert len(worker.lines("redis_may_lose_data")) == 1
        assert worker.stop() == 0


def test_a_replica_is_waited_for_and_judged_when_it_is_the_primary(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary, EVICTING) as server, Stage(server.url, tmp_path) as stage:
        stage.push("a job")
        stage.redis.replicaof("127.0.0.1", "1")

        worker = stage.start()

        (line,) = eventually(lambda: worker.lines("redis_unavailable"), "a line that tells that it waits")
        assert "read only replica" in line["error"]
        assert not worker.lines("redis_unfit")
        assert worker.process.poll() is None
        stage.redis.replicaof("NO", "ONE")
        assert_it_ended_without_a_job(worker, stage)
        assert len(worker.lines("redis_unfit")) == 1


def test_a_worker_that_waits_at_a_replica_can_be_stopped(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary, DURABLE) as server, Stage(server.url, tmp_path) as stage:
        stage.redis.replicaof("127.0.0.1", "1")
        worker = stage.start()
        eventually(lambda: worker.lines("redis_unavailable"), "a line that tells that it waits")

        assert worker.stop() == 0


def test_a_server_that_still_loads_its_data_is_waited_for(server_binary: ServerBinary, tmp_path: Path) -> None:
    slow = {"key-load-delay": 10_000, "loading-process-events-interval-bytes": 1024}  # microseconds
    with RedisServer(server_binary, slow) as server, Stage(server.url, tmp_path) as stage:
        job = stage.send()
        stage.redis.mset({f"other-{number}": "x" * 100 for number in range(KEYS_TO_LOAD)})
        stage.redis.save()
        server.kill()
        loading = threading.Thread(target=server.start)
        loading.start()

        worker = stage.start()

        (line,) = eventually(lambda: worker.lines("redis_unavailable"), "a line that tells that it waits")
        assert "loading the dataset" in line["error"]
        assert loading.is_alive()
        stage.redis.config_set("key-load-delay", 0)
        loading.join()
        eventually(lambda: not stage.redis.info("persistence")["loading"], "a server that has loaded its data")
        assert stage.event_of(job)["data"]["outcome"] == "locked"
        worker.wait_ready()
