"""What strangers send and consumers leave lying takes a bounded part of Redis: good jobs are never refused for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
from redis.exceptions import OutOfMemoryError

from sandbox.faults import Oversized
from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.message.messages import made
from tests.system.stage import DEAD, QUEUE, RESULTS, Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

MIB = 1024 * 1024
#: More than the memory that the test's servers have.
JUNK = 100


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    """On both: each has a memory of its own."""
    from tests.conftest import binary_of  # noqa: PLC0415

    return binary_of(request.param)


@pytest.fixture
def stage(server_binary: ServerBinary, tmp_path: Path) -> Iterator[Stage]:
    """A system whose Redis has 64 MiB."""
    with RedisServer(server_binary, {"maxmemory": "64mb"}) as server, Stage(server.url, tmp_path) as found:
        yield found


def job(name: str) -> bytes:
    """A message of a good job of its own."""
    return made([[], {"conversation_id": f"c-{name}"}, {}], headers={"id": f"job-{name}"})


def memory(stage: Stage, key: str) -> int:
    return int(stage.redis.memory_usage(key, samples=0) or 0)


def test_a_producer_of_large_junk_costs_no_good_job_its_place(stage: Stage) -> None:
    stage.worker()
    refused = 0
    for number in range(JUNK):
        eventually(lambda: stage.redis.llen(QUEUE) < 10, "the worker keeps up")
        stage.push(b"junk" * (MIB // 4))
        for good in range(2):
            try:
                stage.push(job(f"{number}-{good}"))
            except OutOfMemoryError:
                refused += 1

    assert refused == 0
    ended = Counter(event["data"]["outcome"] for event in stage.wait_events(JUNK * 3))
    assert ended == {"locked": JUNK * 2, "rejected": JUNK}
    assert {len(message) for _, message in stage.dead_letters()} == {64 * 1024}
    assert memory(stage, DEAD) < 16 * MIB


def test_results_that_nobody_takes_away_cost_no_job_its_place(stage: Stage) -> None:
    """More than the server holds; the oldest go, and the worker says that its bounds do not fit the server."""
    stage.api.script = Script(rules=(Rule(then=Oversized(size=200_000)),))
    worker = stage.worker()
    for number in range(400):
        eventually(lambda: stage.redis.llen(QUEUE) < 20, "the worker keeps up")
        stage.push(job(str(number)))
    stage.wait_idle()

    assert stage.counters()["outcome:locked"] == 400
    assert memory(stage, RESULTS) <= 33 * MIB
    (line,) = worker.lines("streams_bounded_by_memory")
    assert (line["level"], line["results_max_bytes"]) == ("warning", 32 * MIB)


def test_a_dead_letter_bound_of_the_settings_is_kept(stage: Stage) -> None:
    stage.worker(DEAD_MAX_BYTES=MIB, RESULTS_MAX_BYTES=50_000)
    for _ in range(40):
        stage.push(b"junk" * 30_000)
    eventually(lambda: stage.counters().get("outcome:rejected") == 40, "40 ends")

    assert MIB // 2 < memory(stage, DEAD) <= MIB * 1.05
    assert 25_000 < memory(stage, RESULTS) <= 55_000


def test_an_event_of_a_large_conversation_holds_its_state_and_says_so(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(ids="large", then=Oversized(size=900_000)),))
    stage.worker()

    large, small = stage.event_of(stage.send("large")), stage.event_of(stage.send("small"))

    assert large["data"]["truncated"] is True
    assert set(large["data"]["conversation"]) == {"id", "source", "locked", "createdAt", "updatedAt"}
    assert large["data"]["outcome"] == "locked"
    assert "truncated" not in small["data"]
    assert "lastMessage" in small["data"]["conversation"]


def test_the_bound_of_an_event_is_a_setting(stage: Stage) -> None:
    stage.worker(RESULT_MAX_BYTES=1000)

    event = stage.event_of(stage.send("c-1"))

    assert event["data"]["truncated"] is True
    assert len(stage.redis.xrange(RESULTS)[0][1][b"event"]) <= 1000


def test_the_results_and_their_readers_are_metrics_and_a_loss_is_a_warning(stage: Stage) -> None:
    port = free_port("127.0.0.1")
    stage.redis.xgroup_create(RESULTS, "readers", id="0", mkstream=True)
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port, RESULTS_MAXLEN=100)

    def shown() -> dict[str, float]:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith(("lock_worker_results", "lock_worker_redis")))
        return {name.removeprefix("lock_worker_"): float(value) for name, value in pairs}

    for number in range(50):
        stage.push(job(str(number)))
    eventually(lambda: shown().get('results_group_lag{group="readers"}') == 50, "the group's lag")
    found = shown()
    assert found["results_stream_events"] == 50
    assert found["results_oldest_seconds"] > 0
    assert found["results_stream_bytes"] > 50 * 500
    assert 0 < found["redis_memory_used_bytes"] < found["redis_memory_max_bytes"] == 64 * MIB
    assert worker.lines("results_trimmed_unread") == []

    for number in range(50, 600):
        stage.push(job(str(number)))
    (line,) = eventually(lambda: worker.lines("results_trimmed_unread"), "the warning")
    assert (line["level"], line["group"]) == ("warning", "readers")
    assert line["events"] > 0


def test_readiness_stays_about_the_worker_where_redis_is_nearly_full(stage: Stage) -> None:
    port = free_port("127.0.0.1")
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    number = 0
    while int(stage.redis.info("memory")["used_memory"]) < 0.85 * 64 * MIB:
        number += 1
        stage.redis.set(f"somebody's {number}", b"x" * MIB)

    (line,) = eventually(lambda: worker.lines("redis_nearly_full"), "the warning")

    assert line["maxmemory"] == 64 * MIB
    assert httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
