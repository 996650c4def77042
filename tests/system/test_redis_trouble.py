"""Redis restarted, cut off, frozen, full, or holding nonsense: workers say so, go on by themselves, lose nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from sandbox.faults import Delay, Respond
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.lossy_network import LossyNetwork
from tests.system.stage import DEAD, QUEUE, RESULTS, Stage, WorkerProcess, eventually
from worker.broker.scripts import TAKE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

LEASE_SECONDS = 2
NAMES = ("lock-1@test", "lock-2@test")
SCRIPT = Script(
    rules=(
        Rule(ids="slow*", then=Delay(ms=800)),
        Rule(ids="hangs*", first_calls=1, then=Delay(ms=60_000)),
        Rule(ids="later*", first_calls=1, then=Respond(status=500, headers={"Retry-After": "2"})),
    )
)


@pytest.fixture(scope="module")
def server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    """A server that forgets nothing it has acknowledged."""
    with RedisServer(server_binary, {"appendonly": "yes", "appendfsync": "always"}) as found:
        yield found


@pytest.fixture(scope="module")
def running(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two workers, so that one could take from the other what it must not."""
    with Stage(server.url, tmp_path_factory.mktemp("trouble")) as stage:
        workers = [
            stage.start("-n", name, LEASE_SECONDS=LEASE_SECONDS, ATTEMPT_TIMEOUT_SECONDS=1.4, CONCURRENCY=10)
            for name in NAMES
        ]
        for worker in workers:
            worker.wait_ready()
        yield stage


@pytest.fixture
def stage(running: Stage) -> Stage:
    """The same, with nothing left of the test before."""
    running.redis.flushall()
    running.api.reset()
    running.api.script = SCRIPT
    return running


def fill_the_slots(stage: Stage, kind: str = "slow") -> set[str]:
    """Give both workers as much as they can hold, so that no take is under way."""
    jobs = {stage.send(f"{kind}-{number}") for number in range(20)}
    eventually(lambda: len(stage.api.calls()) >= 20, "twenty calls")
    return jobs


def assert_all_is_well(stage: Stage, jobs: set[str], *, calls: int = 1) -> None:
    """Each job was called so often and has its one event, nobody is blamed, and both workers work and answer."""
    events = stage.wait_events(len(jobs))
    assert {event["id"] for event in events} == jobs
    assert {event["data"]["outcome"] for event in events} == {"locked"}
    assert len(stage.api.calls()) == calls * len(jobs)
    stage.wait_idle()
    assert "crashes" not in stage.counters()
    assert all(worker.process.poll() is None for worker in stage.workers)
    assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
    eventually(lambda: who_answers(stage) == set(NAMES), "an answer of both workers")


def has_events(stage: Stage, count: int) -> bool:
    return int(stage.redis.xlen(RESULTS)) >= count


def who_answers(stage: Stage) -> set[str]:
    """The workers that answer a ping by remote control."""
    with suppress(RedisConnectionError):  # the stock app's own connection was cut as well
        return set(stage.producer.control.inspect(timeout=10, destination=NAMES).ping() or ())
    return set()


def times_connected(stage: Stage) -> int:
    """How often Celery's side of the workers has connected."""
    return sum(worker.log.count("Connected to ") for worker in stage.workers)


def logged(stage: Stage, event: str) -> list[dict[str, Any]]:
    """What all workers have logged."""
    return [line for worker in stage.workers for line in worker.lines(event)]


def test_a_killed_server_that_comes_back_finds_its_workers_with_their_jobs(stage: Stage, server: RedisServer) -> None:
    jobs = fill_the_slots(stage)

    server.kill()
    eventually(lambda: all(worker.lines("redis_unavailable") for worker in stage.workers), "both workers to say so")
    server.start()

    assert_all_is_well(stage, jobs)
    assert "onnect" in logged(stage, "redis_unavailable")[0]["error"]


@pytest.mark.parametrize("leases", [1.05, 1.6])
def test_an_outage_longer_than_a_lease_costs_no_living_worker_its_jobs(
    stage: Stage, server: RedisServer, leases: float
) -> None:
    jobs = fill_the_slots(stage, "hangs")

    server.kill()
    gone_at = time.monotonic()
    eventually(lambda: time.monotonic() > gone_at + leases * LEASE_SECONDS, "an outage longer than a lease")
    server.start()

    assert_all_is_well(stage, jobs, calls=2)


@pytest.mark.parametrize("leases", [0.9, 3.5])
def test_a_server_that_froze_costs_no_living_worker_its_jobs(stage: Stage, server: RedisServer, leases: float) -> None:
    jobs = fill_the_slots(stage, "hangs")

    server.pause()
    frozen_at = time.monotonic()
    eventually(lambda: time.monotonic() > frozen_at + leases * LEASE_SECONDS, "a frozen server")
    server.resume()

    assert_all_is_well(stage, jobs, calls=2)


def test_a_server_that_forgot_the_scripts_is_sent_them_again(stage: Stage) -> None:
    jobs = {stage.send("slow-1")}
    eventually(stage.api.calls, "the call")

    stage.redis.script_flush()
    jobs |= {stage.send(f"c-{number}") for number in range(5)}

    assert_all_is_well(stage, jobs)


def test_connections_cut_again_and_again_lose_no_job(stage: Stage) -> None:
    jobs = {stage.send(f"c-{number}") for number in range(200)}

    for count in (20, 60, 100, 140):
        eventually(partial(has_events, stage, count), f"{count} events")
        stage.redis.client_kill_filter(_type="normal", skipme=True)

    assert_all_is_well(stage, jobs)


def test_a_lost_connection_ends_no_worker_whose_running_jobs_celery_knows(stage: Stage) -> None:
    jobs = fill_the_slots(stage, "hangs")
    active = stage.producer.control.inspect(timeout=10, destination=NAMES).active() or {}
    assert all(active.get(name) for name in NAMES), active

    before = times_connected(stage)
    stage.redis.client_kill_filter(_type="pubsub")
    eventually(lambda: times_connected(stage) >= before + len(NAMES), "both workers to connect anew")

    assert_all_is_well(stage, jobs, calls=2)


def test_connections_that_are_lost_without_a_word_are_given_up_and_made_anew(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    """As where a firewall has forgotten them: neither side ever hears that they are gone."""
    with (
        RedisServer(server_binary) as server,
        LossyNetwork(server.port) as network,
        Stage(server.url, tmp_path) as own,
    ):
        own.api.script = SCRIPT
        own.worker(REDIS_URL=f"redis://127.0.0.1:{network.port}/0", LEASE_SECONDS=30)
        jobs = {own.send(f"slow-{number}") for number in range(10)}
        eventually(lambda: len(own.api.calls()) >= 10, "ten calls")

        network.lose_connections()
        jobs.add(own.send("new"))

        events = own.wait_events(11)
        assert {event["id"] for event in events} == jobs
        assert {event["data"]["outcome"] for event in events} == {"locked"}
        own.wait_idle()
        assert len(own.api.calls()) == 11
        assert "crashes" not in own.counters()


def test_a_take_whose_answer_was_lost_counts_as_no_crash(server_binary: ServerBinary, tmp_path: Path) -> None:
    """The server has given the worker a job that it never heard of. It comes back by its lease."""
    with (
        RedisServer(server_binary) as server,
        Stage(server.url, tmp_path) as own,
        LossyNetwork(server.port) as network,
    ):
        own.redis.script_load(TAKE.text)  # or the answer that is lost would be that the server does not know it
        network.lose_the_answer_to(own.keys.draining.encode())  # that key stands in takes alone
        job = own.send()
        own.start(REDIS_URL=f"redis://127.0.0.1:{network.port}/0", LEASE_SECONDS=7)

        assert own.event_of(job)["data"]["outcome"] == "locked"
        own.wait_idle()
        assert own.redis.hlen(own.keys.lost_takes) == 1
        assert "crashes" not in own.counters()
        assert len(own.api.calls()) == 1


@pytest.mark.parametrize(
    ("trouble", "end"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
    ],
    ids=["a replica", "without its replicas"],
)
def test_a_server_that_takes_no_writes_for_longer_than_a_lease_costs_no_living_worker_its_jobs(
    stage: Stage, trouble: tuple[str, ...], end: tuple[str, ...]
) -> None:
    jobs = fill_the_slots(stage, "hangs")

    stage.redis.execute_command(*trouble)
    refused_at = time.monotonic()
    eventually(lambda: time.monotonic() > refused_at + 1.6 * LEASE_SECONDS, "refusals for longer than a lease")
    stage.redis.execute_command(*end)

    assert_all_is_well(stage, jobs, calls=2)


@pytest.mark.parametrize("stream", [RESULTS, DEAD])
def test_while_a_stream_is_something_else_jobs_are_kept_and_ended_when_it_is_mended(stage: Stage, stream: str) -> None:
    stage.redis.set(stream, "no stream")
    jobs = {stage.send(f"c-{number}") for number in range(5)}

    def lines(worker: WorkerProcess) -> list[dict[str, Any]]:
        return [line for line in worker.lines("redis_refuses") if stream in line["error"]]

    eventually(lambda: any(lines(worker) for worker in stage.workers), "a line that tells why")
    told_at = time.monotonic()
    eventually(lambda: time.monotonic() > told_at + 1.5 * LEASE_SECONDS, "attempts over more than a lease")

    assert all(len(lines(worker)) <= 1 for worker in stage.workers)
    stage.redis.delete(stream)
    assert_all_is_well(stage, jobs)


def test_a_full_server_refuses_producers_but_is_drained(stage: Stage) -> None:
    """By workers that were there before, and by one that comes now; with jobs that have to be tried again."""
    jobs = {stage.send(f"later-{number}") for number in range(10)}
    waiting = {stage.send(f"c-{number}", queue="waiting") for number in range(10)}
    eventually(lambda: stage.redis.zcard(stage.keys.delayed) == 10, "ten jobs that wait for their next attempt")

    stage.redis.config_set("maxmemory", "1")
    with pytest.raises((OperationalError, OutOfMemoryError)):
        stage.send()
    newcomer = stage.worker("-Q", "waiting")

    events = stage.wait_events(20)
    assert {event["id"] for event in events} == jobs | waiting
    assert {event["data"]["outcome"] for event in events} == {"locked"}
    stage.redis.config_set("maxmemory", "0")
    assert newcomer.stop() == 0
    assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
    assert stage.redis.llen(QUEUE) == 0
    stage.workers.remove(newcomer)
