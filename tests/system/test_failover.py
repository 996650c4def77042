"""A primary is demoted, or its network stops: workers leave it by themselves and go on where their address leads."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import redis
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError

from sandbox.faults import Delay
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.lossy_network import LossyNetwork
from tests.system.stage import Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

pytestmark = pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)

NAME = "lock-1@test"
SLOTS = 10
SCRIPT = Script(rules=(Rule(ids="slow*", then=Delay(ms=1500)),))
#: Work goes on within so many seconds after the address leads to a primary again.
GOES_ON_SECONDS = 10.0


class Pair:
    """A primary and its replica behind one address; ``old`` has the stage before the failover, ``new`` after it."""

    def __init__(self, binary: ServerBinary, folder: Path, stack: ExitStack) -> None:
        # A snapshot is due in an hour, so that one that fails is a reason to refuse writes.
        self.first = stack.enter_context(RedisServer(binary, {"enable-protected-configs": "yes", "save": "3600 1"}))
        self.second = stack.enter_context(RedisServer(binary, {"replicaof": f"127.0.0.1 {self.first.port}"}))
        self.network = stack.enter_context(LossyNetwork(self.first.port))
        self.old = stack.enter_context(Stage(self.first.url, folder))
        self.old.api.script = SCRIPT
        self.new = stack.enter_context(redis.Redis.from_url(self.second.url))
        self.producer = stack.enter_context(Celery("producer", broker=self.second.url))
        eventually(lambda: self.new.info("replication")["master_link_status"] == "up", "a replica that follows")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.network.port}/0"

    def fail_over(self) -> None:
        """Promote the replica, let the address lead there, and let the old primary live on as its replica."""
        self.old.redis.execute_command("WAIT", 1, 5000)
        self.new.replicaof("NO", "ONE")
        self.network.lead_to(self.second.port)
        self.old.redis.replicaof("127.0.0.1", str(self.second.port))

    def fail_over_without_the_old(self) -> None:
        """Promote the replica and let the address lead there; the old primary is not told, and remains one."""
        self.new.replicaof("NO", "ONE")
        self.network.lead_to(self.second.port)

    def cut_off_the_replicas(self) -> None:
        """Let the old primary refuse all writes: it wants a replica, and has none (NOREPLICAS)."""
        self.old.redis.execute_command("WAIT", 1, 5000)
        self.new.replicaof("127.0.0.1", "1")
        self.old.redis.config_set("min-replicas-to-write", 1)

    def take_the_disk(self) -> None:
        """Let the old primary refuse all writes: it cannot save its data (MISCONF)."""
        self.old.redis.execute_command("WAIT", 1, 5000)
        self.old.redis.config_set("dir", "/proc")  # where nobody can make a file, whatever the user
        self.old.redis.bgsave()
        saved = "rdb_last_bgsave_status"
        eventually(lambda: self.old.redis.info("persistence")[saved] == "err", "a snapshot that failed")

    def send(self, conversation: str) -> str:
        """Enqueue a job at the new primary."""
        kwargs = {"conversation_id": conversation}
        return str(self.producer.send_task("moderation.lock_conversation", kwargs=kwargs, queue="moderation.lock").id)

    def assert_events(self, jobs: set[str]) -> None:
        """Each job has its one event at the new primary, soon."""
        results = "moderation.results"
        eventually(lambda: self.new.xlen(results) >= len(jobs), f"{len(jobs)} events", GOES_ON_SECONDS)
        texts = [fields[b"event"].decode() for _, fields in self.new.xrange(results)]
        assert len(texts) == len(jobs)
        assert all(sum(job in text for text in texts) == 1 for job in jobs)


@pytest.fixture
def pair(server_binary: ServerBinary, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(server_binary, tmp_path, stack)


def start_warm(stage: Stage, url: str) -> WorkerProcess:
    """A worker at this address that fills all its slots at once."""
    worker = stage.worker("-n", NAME, REDIS_URL=url, CONCURRENCY=SLOTS, LEASE_SECONDS=30)
    return stage.warm_up(worker)


def fill_the_slots(stage: Stage) -> set[str]:
    """Twice as many jobs as there are slots, so that no take is under way."""
    jobs = {stage.send(f"slow-{number}") for number in range(2 * SLOTS)}
    eventually(lambda: len(stage.api.calls()) >= SLOTS, "full slots")
    return jobs


def assert_it_answers(pair: Pair) -> None:
    """Remote control finds the worker at the new primary."""

    def answers() -> bool:
        with suppress(RedisConnectionError):
            return bool(pair.producer.control.inspect(timeout=1, destination=[NAME]).ping())
        return False

    eventually(answers, "an answer to remote control", GOES_ON_SECONDS)


def test_a_worker_whose_slots_are_full_ends_its_jobs_at_the_new_primary(pair: Pair) -> None:
    start_warm(pair.old, pair.url)
    jobs = fill_the_slots(pair.old)

    pair.fail_over()

    pair.assert_events(jobs)
    pair.assert_events(jobs | {pair.send("c-1")})
    assert_it_answers(pair)
    assert len(pair.old.api.calls()) == 2 * SLOTS + 1


def test_a_worker_that_waits_for_a_message_finds_the_next_one_at_the_new_primary(pair: Pair) -> None:
    worker = pair.old.worker("-n", NAME, REDIS_URL=pair.url)
    eventually(lambda: pair.old.redis.info("clients")["blocked_clients"], "a worker that waits")

    pair.fail_over()

    pair.assert_events({pair.send("c-1")})
    assert_it_answers(pair)
    assert worker.stop() == 0


@pytest.mark.parametrize("refuse", [Pair.cut_off_the_replicas, Pair.take_the_disk], ids=["NOREPLICAS", "MISCONF"])
def test_all_of_a_worker_leaves_a_primary_that_takes_no_writes_for_the_new_one(
    pair: Pair, refuse: Callable[[Pair], None]
) -> None:
    worker = start_warm(pair.old, pair.url)
    jobs = fill_the_slots(pair.old)

    refuse(pair)
    eventually(lambda: worker.lines("redis_unavailable"), "a line that tells of it")
    pair.fail_over_without_the_old()

    pair.assert_events(jobs)
    pair.assert_events(jobs | {pair.send("c-1")})
    assert_it_answers(pair)
    assert worker.stop() == 0


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


def test_a_network_that_stopped_without_a_word_is_left_for_new_connections_when_it_is_back(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with (
        RedisServer(server_binary) as server,
        LossyNetwork(server.port) as network,
        Stage(server.url, tmp_path) as stage,
    ):
        stage.api.script = SCRIPT
        worker = start_warm(stage, f"redis://127.0.0.1:{network.port}/0")
        jobs = fill_the_slots(stage)

        network.stop_forwarding()
        stopped_at = time.monotonic()
        eventually(lambda: time.monotonic() > stopped_at + 8, "a network that is silent for longer than any time-out")
        network.forward_again()

        eventually(lambda: stage.redis.xlen("moderation.results") >= 2 * SLOTS, "all events", GOES_ON_SECONDS)
        assert {event["id"] for event in stage.wait_events(2 * SLOTS)} == jobs
        stage.wait_idle()
        assert "crashes" not in stage.counters()
        eventually(lambda: worker.lines("redis_available"), "a line that tells that it is over")


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
    server_binary: ServerBinary,  # noqa: ARG001 - the same for both
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
