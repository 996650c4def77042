"""Redis takes no answer, or is away: Celery's thread does not wait for it without end, and a worker can be stopped."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sandbox.redis_server import RedisServer
from tests.system.stage import Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

pytestmark = pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)

NAME = "lock-1@test"
#: Where commands of the remote control are published, and heartbeats.
COMMANDS, HEARTBEATS = "/0.celery.pidbox", "/0.celeryev/worker.heartbeat"
#: What happens to the server.
TROUBLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "goes": (("SHUTDOWN", "NOSAVE"),),
    "becomes a replica": (("REPLICAOF", "127.0.0.1", "1"),),
    "becomes a replica that answers nothing": (
        ("CONFIG", "SET", "replica-serve-stale-data", "no"),
        ("REPLICAOF", "127.0.0.1", "1"),
    ),
    "is full": (("CONFIG", "SET", "maxmemory", "1"),),
    "wants replicas": (("CONFIG", "SET", "min-replicas-to-write", "1"),),
}


@pytest.fixture
def stage(server_binary: ServerBinary, tmp_path: Path) -> Iterator[Stage]:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path) as found:
        yield found


def asked(stage: Stage) -> bytes:
    """A command that wants an answer, as it goes over the wire."""
    with stage.redis.pubsub() as listener, stage.producer.connection_for_write() as connection:
        listener.subscribe(COMMANDS)
        eventually(listener.get_message, "a subscription")
        control: Any = stage.producer.control
        mailbox = control.mailbox(connection)
        mailbox._publish("stats", {}, destination=[NAME], reply_ticket="a-ticket")
        heard = eventually(lambda: listener.get_message(ignore_subscribe_messages=True), "the command")
    eventually(lambda: stage.redis.keys("*.reply.celery.pidbox"), "the answer to it")
    return bytes(heard["data"])


def trouble_with_a_command(stage: Stage, trouble: tuple[tuple[str, ...], ...]) -> None:
    """Let the server run into trouble with commands that were just sent, and so are to be answered."""
    command = asked(stage)
    with suppress(RedisConnectionError), stage.redis.pipeline(transaction=False) as at_once:
        at_once.publish(COMMANDS, command)
        for words in trouble:
            at_once.execute_command(*words)
        at_once.publish(COMMANDS, command)
        at_once.execute()


def has_trouble(worker: WorkerProcess) -> bool:
    return bool(worker.lines("redis_unavailable") or worker.lines("redis_refuses"))


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_a_worker_that_cannot_answer_a_command_stops_all_the_same(
    stage: Stage, trouble: tuple[tuple[str, ...], ...]
) -> None:
    worker = stage.worker("-n", NAME, SHUTDOWN_SECONDS=1)
    trouble_with_a_command(stage, trouble)
    eventually(lambda: has_trouble(worker), "a line that tells of it")

    assert worker.stop() == 0

    assert "Traceback" not in worker.log


def test_an_answer_that_a_full_server_does_not_take_is_given_up_and_told(stage: Stage) -> None:
    worker = stage.worker("-n", NAME)
    trouble_with_a_command(stage, TROUBLES["is full"])

    eventually(lambda: worker.lines("control_not_answered"), "a line that tells of it")
    stage.redis.config_set("maxmemory", "0")

    assert stage.producer.control.inspect(timeout=10, destination=[NAME]).ping() == {NAME: {"ok": "pong"}}
    assert "Traceback" not in worker.log
    assert worker.stop() == 0


def test_a_worker_that_cannot_send_its_heartbeats_stops_all_the_same(stage: Stage) -> None:
    worker = stage.worker("-n", NAME, "-E", SHUTDOWN_SECONDS=1)
    with stage.redis.pubsub() as listener:
        listener.subscribe(HEARTBEATS)
        eventually(lambda: listener.get_message(ignore_subscribe_messages=True), "a heartbeat")
    with suppress(RedisConnectionError):
        stage.redis.shutdown(nosave=True)
    eventually(lambda: has_trouble(worker), "a line that tells of it")

    assert worker.stop() == 0
