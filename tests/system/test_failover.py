"""A primary is demoted, or its network stops: workers leave it by themselves and go on where their address leads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sandbox.redis_server import RedisServer
from tests.system.lossy_network import LossyNetwork
from tests.system.pair import GOES_ON_SECONDS, NAME, SCRIPT, SLOTS, Pair, assert_it_answers, fill_the_slots, start_warm
from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

pytestmark = pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)


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
