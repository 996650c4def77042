"""A server that refuses is not one that is away: each command says so, and what to do."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import redis

from sandbox.redis_server import RedisServer
from tests.cli.terminal import Terminal, eventually
from worker.cli.refusals import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

    Trouble = Callable[[redis.Redis], AbstractContextManager[object]]

COMMANDS = {
    "status": ["status"],
    "workers": ["workers"],
    "watch": ["watch"],
    "show": ["show", "c-1"],
    "dead": ["dead"],
    "replay": ["replay", "--all"],
    "enqueue": ["enqueue", "c-1"],
    "pause": ["pause", "--reason", "x"],
    "holds": ["holds"],
    "cancel": ["cancel", "--rule", "r", "--reason", "x"],
}
LOOKS = {"status", "watch", "replay", "holds"}
#: Those that change what is in Redis, but work where it is full.
STEERS = {"pause", "cancel"}


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    yield


@contextmanager
def no_permission(client: redis.Redis) -> Iterator[None]:
    client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["-@all", "+ping"])
    yield


@contextmanager
def password_wanted(client: redis.Redis) -> Iterator[None]:
    client.config_set("requirepass", "a password")
    yield


@contextmanager
def replica(client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", 1)
    yield


@contextmanager
def orphan(client: redis.Redis) -> Iterator[None]:
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", 1)
    yield


@contextmanager
def too_many_clients(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxclients", 1)
    yield


@contextmanager
def no_replicas(client: redis.Redis) -> Iterator[None]:
    client.config_set("min-replicas-to-write", 1)
    yield


@contextmanager
def busy(client: redis.Redis) -> Iterator[None]:
    client.config_set("busy-reply-threshold", 1)
    address: Any = client.connection_pool.connection_kwargs
    with redis.Redis(host=address["host"], port=address["port"]) as other:

        def script() -> None:
            with suppress(redis.RedisError):
                other.eval("while true do end", 0)

        thread = threading.Thread(target=script)
        thread.start()

        def is_busy() -> bool:
            try:
                client.ping()
            except redis.ResponseError as error:
                return "BUSY" in str(error)
            return False

        eventually(is_busy, "a server that is busy")
        try:
            yield
        finally:
            client.script_kill()
            thread.join()


@contextmanager
def loading(client: redis.Redis) -> Iterator[None]:
    for number in range(2000):
        client.set(f"key-{number}", "x" * 100)
    client.config_set("loading-process-events-interval-bytes", 1024)
    client.config_set("key-load-delay", 10_000)
    address: Any = client.connection_pool.connection_kwargs

    def reload() -> None:
        with suppress(redis.RedisError), redis.Redis(host=address["host"], port=address["port"]) as other:
            other.execute_command("DEBUG", "RELOAD")

    threading.Thread(target=reload, daemon=True).start()

    def is_loading() -> bool:
        try:
            client.llen("a list")
        except redis.BusyLoadingError:
            return True
        return False

    eventually(is_loading, "a server that loads its data")
    yield


@contextmanager
def another_type(client: redis.Redis) -> Iterator[None]:
    for name in ("moderation.lock", "moderation.results", "moderation.dead", "lw:1:moderation.lock:controls"):
        client.set(name, "no list, no stream and no hash")
    yield


@pytest.fixture
def server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    with RedisServer(server_binary, {"enable-debug-command": "yes"}) as one:
        yield one


@pytest.mark.parametrize(
    ("trouble", "words", "fix", "commands"),
    [
        (full, "OOM ", "raise maxmemory", {"enqueue"}),
        (no_permission, "NOPERM ", "docs/redis.md", COMMANDS),
        (password_wanted, "NOAUTH ", "the password in REDIS_URL", COMMANDS),
        (replica, "READONLY ", "name the primary", {"enqueue", *STEERS}),
        (orphan, "MASTERDOWN ", "name the primary", LOOKS),
        (too_many_clients, "max number of clients", "maxclients", COMMANDS),
        (no_replicas, "NOREPLICAS ", "min-replicas-to-write", {"enqueue", *STEERS}),
        (busy, "BUSY ", "SCRIPT KILL", COMMANDS),
        (loading, "LOADING ", "try again in a moment", COMMANDS),
        (another_type, "WRONGTYPE ", "another name", COMMANDS),
    ],
)
def test_a_refusal_is_reported_as_one_with_what_to_do(
    server: RedisServer, tmp_path: Path, *, trouble: Trouble, words: str, fix: str, commands: set[str]
) -> None:
    with redis.Redis.from_url(server.url) as client, trouble(client):
        for command in commands:
            ended = Terminal({"REDIS_URL": server.url}, tmp_path).run(*COMMANDS[command])

            assert ended.returncode == 1, command
            assert ended.stderr.startswith(f"lock-worker: Redis at 127.0.0.1:{server.port}/0 refused"), ended.stderr
            assert words in ended.stderr.splitlines()[0]
            assert fix in ended.stderr.splitlines()[1]
            assert "pipeline" not in ended.stderr
            if command in STEERS:
                assert ended.stderr.endswith("\nNothing was changed.\n")
            if command == "enqueue":
                assert ended.stdout == ""
                assert "0 of 1 job arrived; 1 did not arrive" in ended.stderr


@pytest.mark.parametrize("trouble", [full, replica, no_replicas])
@pytest.mark.parametrize("command", sorted(LOOKS))
def test_a_server_that_takes_no_writes_can_be_looked_at(
    server: RedisServer, tmp_path: Path, trouble: Trouble, command: str
) -> None:
    look = {"watch": ["watch", "--timeout", "0.1"], "replay": ["replay", "--list"]}.get(command, [command])
    with redis.Redis.from_url(server.url) as client, trouble(client):
        ended = Terminal({"REDIS_URL": server.url}, tmp_path).run(*look)

    assert "refused" not in ended.stderr
    assert ended.returncode == (1 if command == "watch" else 0)


@pytest.mark.parametrize("command", sorted(STEERS))
def test_a_full_server_can_be_steered(server: RedisServer, tmp_path: Path, command: str) -> None:
    with redis.Redis.from_url(server.url) as client, full(client):
        ended = Terminal({"REDIS_URL": server.url}, tmp_path).run(*COMMANDS[command])

        assert ended.returncode == 0, ended.stderr
        assert client.xlen("moderation.control") == 1


@pytest.mark.parametrize("trouble", [full, replica, no_replicas])
def test_of_several_jobs_that_a_server_refuses_each_is_known_not_to_have_arrived(
    server: RedisServer, tmp_path: Path, trouble: Trouble
) -> None:
    with redis.Redis.from_url(server.url) as client, trouble(client):
        ended = Terminal({"REDIS_URL": server.url}, tmp_path).run("enqueue", "c-1", "c-2", "c-3")

    assert ended.returncode == 1
    assert "0 of 3 jobs arrived; 3 did not arrive" in ended.stderr


def test_a_command_of_a_look_that_was_refused_is_named(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.set("lw:1:moderation.lock:held", "no zset")

    ended = terminal.run("holds")

    assert "refused ZCARD lw:1:moderation.lock:held: WRONGTYPE " in ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("user", ["", "nobody:hunter2@"])
def test_a_wrong_password_and_a_missing_one_say_where_to_look(
    server_binary: ServerBinary, tmp_path: Path, command: str, user: str
) -> None:
    with RedisServer(server_binary, {"requirepass": "secret"}) as server:
        url = f"redis://{user}127.0.0.1:{server.port}/0"
        ended = Terminal({"REDIS_URL": url}, tmp_path).run(*COMMANDS[command])

    assert ended.returncode == 1
    assert f"lock-worker: Redis at 127.0.0.1:{server.port}/0 refused" in ended.stderr
    assert "the user and the password in REDIS_URL" in ended.stderr
    assert "hunter2" not in ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_is_not_there_is_reported(terminal: Terminal, command: str) -> None:
    url = terminal.environment["REDIS_URL"].removesuffix("/0") + "/99"

    ended = terminal.run(*COMMANDS[command], REDIS_URL=url)

    assert ended.returncode == 1
    assert "refused: DB index is out of range\nLet REDIS_URL end in a database number" in ended.stderr


def test_a_server_that_does_not_answer_in_time_is_not_taken_for_one_that_is_down() -> None:
    assert "stopped or busy" in described(redis.TimeoutError("Timeout reading from socket"))
    assert "whether the server is up" in described(redis.ConnectionError("Connection refused"))
