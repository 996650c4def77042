"""How a worker stops: it takes no more, finishes or releases its jobs in flight, and nothing is lost or doubled."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Delay
from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.stage import QUEUE, Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary
    from tests.system.stage import WorkerProcess

HEIR = "heir@test"
SCRIPT = Script(rules=(Rule(ids="brief*", then=Delay(ms=300)), Rule(ids="slow*", then=Delay(ms=1500))))
#: What the slowest machine may need beside the time that a test is about.
SLACK_SECONDS = 4.0


@pytest.fixture(scope="module")
def running(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage with a worker that takes jobs over when it is told to, and not before."""
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path_factory.mktemp("shutdown")) as stage:
        stage.worker("-n", HEIR, "-Q", "idle")
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """The same, with nothing left of the test before."""
    running.redis.flushall()
    running.api.reset()
    running.api.script = SCRIPT
    yield running
    for worker in running.workers[1:]:
        worker.close()
    running.producer.control.cancel_consumer(QUEUE, destination=[HEIR], reply=True, timeout=10)


def take_over(stage: Stage) -> None:
    """Let the heir take jobs, and end them at once."""
    stage.api.script = Script()
    stage.producer.control.add_consumer(QUEUE, destination=[HEIR], reply=True, timeout=10)


def seconds_to_stop(worker: WorkerProcess, how: signal.Signals = signal.SIGTERM) -> float:
    """How long a worker took to end as it should."""
    began = time.monotonic()
    assert worker.stop(how) == 0, worker.log
    assert "Traceback" not in worker.log
    return time.monotonic() - began


def test_an_idle_worker_stops_at_once(stage: Stage) -> None:
    worker = stage.worker(SHUTDOWN_SECONDS=60)

    assert seconds_to_stop(worker) < SLACK_SECONDS


def test_a_busy_worker_takes_no_more_and_finishes_what_it_holds(stage: Stage) -> None:
    worker = stage.warm_up(stage.worker(CONCURRENCY=5, SHUTDOWN_SECONDS=60))
    for number in range(50):
        stage.send(f"brief-{number}")
    stage.wait_events(5)
    called = len(stage.api.calls())

    assert seconds_to_stop(worker) < SLACK_SECONDS

    finished = len(stage.api.calls())
    assert finished <= called + 2 * 5, "it went on taking jobs"
    assert len(stage.wait_events(finished)) == finished
    # Those of a take whose answer was on its way were released; the others were never taken.
    assert stage.redis.llen(QUEUE) + stage.redis.llen(stage.keys.requeued) == stage.jobs_left() == 50 - finished
    take_over(stage)
    stage.wait_events(50)


def test_jobs_that_do_not_end_in_time_are_released_and_taken_by_another_worker_at_once(stage: Stage) -> None:
    worker = stage.warm_up(stage.worker(SHUTDOWN_SECONDS=1, LEASE_SECONDS=60))
    jobs = {stage.send(f"slow-{number}") for number in range(3)}
    eventually(lambda: len(stage.api.calls()) == 3, "three calls")

    assert seconds_to_stop(worker) < 1 + SLACK_SECONDS

    assert stage.redis.zcard(stage.keys.leases) == 0
    assert stage.redis.llen(stage.keys.requeued) == 3
    assert worker.lines("jobs_left_to_their_leases") == []
    began = time.monotonic()
    take_over(stage)
    eventually(lambda: len(stage.api.calls()) == 6, "the calls of the other worker")
    assert time.monotonic() - began < SLACK_SECONDS
    events = stage.wait_events(3)
    assert {event["id"] for event in events} == jobs
    assert [event["data"]["attempts"] for event in events] == [2, 2, 2]
    assert stage.counters()["released"] == 3
    assert "crashes" not in stage.counters()


@pytest.mark.parametrize(
    ("signals", "remap", "is_clean"),
    [
        ((signal.SIGTERM, signal.SIGTERM), "", True),
        ((signal.SIGINT,), "", False),
        ((signal.SIGINT, signal.SIGINT), "", False),
        ((signal.SIGTERM, signal.SIGQUIT), "", False),
        ((signal.SIGQUIT,), "", False),
        ((signal.SIGTERM,), "SIGQUIT", False),
    ],
    ids=["TERM-TERM", "INT", "INT-INT", "TERM-QUIT", "QUIT", "TERM-as-QUIT"],
)
def test_however_a_worker_is_stopped_no_job_is_lost_or_doubled(
    stage: Stage, signals: tuple[signal.Signals, ...], remap: str, *, is_clean: bool
) -> None:
    worker = stage.worker(CONCURRENCY=4, SHUTDOWN_SECONDS=1, LEASE_SECONDS=60, REMAP_SIGTERM=remap)
    stage.warm_up(worker)
    jobs = {stage.send(f"slow-{number}") for number in range(8)}
    eventually(lambda: len(stage.api.calls()) == 4, "four calls")

    for how in signals[:-1]:
        worker.process.send_signal(how)
        eventually(lambda: "shutdown" in worker.log, "an answer to the first signal")
    began = time.monotonic()
    status = worker.stop(signals[-1])

    assert status == 0 or not is_clean  # of the others Celery decides
    assert time.monotonic() - began < 1 + SLACK_SECONDS
    assert "Traceback" not in worker.log
    assert stage.redis.zcard(stage.keys.leases) == 0
    take_over(stage)
    assert {event["id"] for event in stage.wait_events(8)} == jobs
    assert stage.counters()["finished"] == 8
    assert "crashes" not in stage.counters()


def test_a_worker_can_be_stopped_by_remote_control(stage: Stage) -> None:
    job = stage.send("brief-1")
    worker = stage.worker("-n", "remote@test")
    eventually(stage.api.calls, "the call")

    stage.producer.control.shutdown(destination=["remote@test"])

    assert worker.process.wait(10) == 0
    assert [event["id"] for event in stage.wait_events(1)] == [job]


@pytest.mark.parametrize(("trouble", "shutdown_seconds"), [("gone", 2), ("silent", 14)])
def test_without_redis_a_busy_worker_stops_in_bounded_time(
    server_binary: ServerBinary, tmp_path: Path, trouble: str, shutdown_seconds: int
) -> None:
    """Celery takes its leave of Redis three times, and waits five seconds for each answer; meanwhile the time runs."""
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path) as own:
        own.api.script = SCRIPT
        worker = own.warm_up(own.worker(SHUTDOWN_SECONDS=shutdown_seconds))
        for number in range(3):
            own.send(f"slow-{number}")
        eventually(lambda: len(own.api.calls()) == 3, "three calls")
        server.kill() if trouble == "gone" else server.pause()

        assert seconds_to_stop(worker) < shutdown_seconds + 2 * SLACK_SECONDS

        assert worker.lines("jobs_left_to_their_leases")[0]["jobs"] == 3


def test_a_worker_that_waits_for_redis_can_be_stopped(stage: Stage) -> None:
    worker = stage.start(REDIS_URL=f"redis://127.0.0.1:{free_port('127.0.0.1')}/0")
    eventually(lambda: worker.lines("redis_unavailable"), "a line that tells that it waits")

    assert seconds_to_stop(worker) < SLACK_SECONDS
