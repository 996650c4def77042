"""A server that takes no connection, or no write, for a while is waited for with few connections, and told of once."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from sandbox.redis_server import RedisServer
from tests.system.pair import NAME, SLOTS, Pair, assert_it_answers, fill_the_slots, start_warm
from tests.system.stage import Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary


@pytest.mark.parametrize("refuse", [Pair.cut_off_the_replicas, Pair.take_the_disk], ids=["NOREPLICAS", "MISCONF"])
def test_a_primary_that_takes_no_writes_for_a_while_is_waited_for_with_few_connections(
    pair: Pair, refuse: Callable[[Pair], None]
) -> None:
    worker = start_warm(pair.old, pair.url)
    jobs = fill_the_slots(pair.old)

    refuse(pair)
    refused_at, before = time.monotonic(), pair.network.accepted
    eventually(lambda: time.monotonic() > refused_at + 6, "some seconds of refusals")
    assert pair.network.accepted - before < 40
    assert len(worker.lines("redis_unavailable")) == 1
    pair.old.redis.config_set("min-replicas-to-write", 0)
    pair.old.redis.config_set("stop-writes-on-bgsave-error", "no")

    eventually(lambda: worker.lines("redis_available"), "a line that tells that it is over")
    assert {event["id"] for event in pair.old.wait_events(2 * SLOTS)} == jobs
    inspect = pair.old.producer.control.inspect(timeout=10, destination=[NAME])
    assert inspect.ping() == {NAME: {"ok": "pong"}}
    assert worker.stop() == 0


def test_a_server_that_is_demoted_for_a_while_is_waited_for_with_few_connections(pair: Pair) -> None:
    worker = start_warm(pair.old, pair.url)
    jobs = fill_the_slots(pair.old)

    pair.old.redis.execute_command("WAIT", 1, 5000)
    before = pair.network.accepted
    pair.old.redis.replicaof("127.0.0.1", "1")
    demoted_at = time.monotonic()
    eventually(lambda: time.monotonic() > demoted_at + 6, "some seconds as a replica")
    assert pair.network.accepted - before < 40
    assert len(worker.lines("redis_unavailable")) == 1
    pair.new.replicaof("NO", "ONE")
    pair.network.lead_to(pair.second.port)

    pair.assert_events(jobs)
    assert_it_answers(pair)
    eventually(lambda: worker.lines("redis_available"), "a line that tells that it is over")
    assert len(worker.lines("redis_unavailable")) == 1


@contextmanager
def hang_up() -> Iterator[list[float]]:
    """A port that accepts each connection and closes it at once, as a proxy without a server; the times of them."""
    times: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    times.append(time.monotonic())
                    client.close()

        thread = threading.Thread(target=accept)
        thread.start()
        times.append(float(listening.getsockname()[1]))
        yield times
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def watched(worker: WorkerProcess, seconds: float) -> None:
    began_at = time.monotonic()
    eventually(lambda: time.monotonic() > began_at + seconds, "some seconds")
    assert worker.process.poll() is None


def test_connections_that_are_lost_right_after_they_were_made_are_made_ever_more_seldom(
    tmp_path: Path,
) -> None:
    with hang_up() as times, Stage("redis://127.0.0.1:1/0", tmp_path) as stage:
        worker = stage.start(REDIS_URL=f"redis://127.0.0.1:{int(times.pop(0))}/0")
        eventually(lambda: len(times) >= 5, "five attempts")
        watched(worker, 4)
        before = len(times)

        watched(worker, 6)

        assert len(times) - before <= 8
        assert len(worker.lines("redis_unavailable")) == 1


def test_a_server_that_is_at_its_maxclients_is_asked_seldom_and_said_with_what_to_do(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path) as stage, ExitStack() as stack:
        worker = stage.worker()
        stage.redis.ping()
        stage.redis.config_set("maxclients", 10)
        stage.redis.client_kill_filter(_type="normal", skipme=True)
        stage.redis.client_kill_filter(_type="pubsub", skipme=True)
        for _ in range(20):  # whoever comes first
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        eventually(lambda: "maxclients" in worker.log, "a line that tells what to do")
        watched(worker, 4)
        before = stage.redis.info("stats")["rejected_connections"]

        watched(worker, 6)

        assert stage.redis.info("stats")["rejected_connections"] - before <= 10
        stack.close()
        stage.redis.config_set("maxclients", 1000)
        assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
