"""state: what a queue and its fleet are at one moment, and nothing is changed by looking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from sandbox.redis_server import RedisServer
from tests.broker.workbench import Workbench, link_to
from tests.system.stage import eventually
from worker.broker.keys import Keys

if TYPE_CHECKING:
    from sandbox.server_binaries import ServerBinary


async def test_an_unused_queue_has_nothing(bench: Workbench) -> None:
    state = await bench.state()

    assert (state.ready, state.waiting, state.in_flight, state.totals, state.wrong_keys) == (0, 0, 0, {}, {})
    assert (state.oldest_ready_ms, state.first_due_ms, state.maintained_ms, state.samples) == (None, None, None, ())
    assert (state.paused_ms, state.paused_why, state.rate, state.workers) == (0, "", 0.0, {})


@pytest.mark.usefixtures("overwritten")
async def test_the_due_are_told_from_those_that_wait(bench: Workbench) -> None:
    now = bench.now_ms()
    bench.run("ZADD", bench.keys.delayed, now - 7_000, "a", now - 5, "b", now + 60_000, "c")

    state = await bench.state()

    assert (state.delayed, state.due, state.waiting) == (1, 2, 3)
    assert state.first_due_ms == now - 7_000


@pytest.mark.parametrize("never", ["-inf", "inf"])
@pytest.mark.usefixtures("overwritten")
async def test_a_time_without_end_is_no_time(bench: Workbench, never: str) -> None:
    bench.run("ZADD", bench.keys.delayed, never, "a")

    assert (await bench.state()).first_due_ms is None


async def test_a_pause_is_told_with_its_reason(bench: Workbench) -> None:
    bench.run("SET", bench.keys.pause, "the API answered 429 to one", "PX", 50_000)

    state = await bench.state()

    assert 40_000 < state.paused_ms <= 50_000
    assert state.paused_why == "the API answered 429 to one"


KEYS = Keys("moderation.lock")


@pytest.mark.parametrize(
    "key",
    [
        *KEYS.priority_lists, KEYS.arrived, KEYS.requeued, KEYS.retries, KEYS.suspects, KEYS.delayed, KEYS.leases,
        KEYS.counters, KEYS.maintenance, KEYS.samples, KEYS.arrivals, KEYS.pause, KEYS.rate, KEYS.limit, KEYS.workers,
    ],
)  # fmt: skip
@pytest.mark.usefixtures("overwritten")
async def test_a_key_that_somebody_overwrote_is_named_and_counts_as_empty(bench: Workbench, key: str) -> None:
    bench.run("SADD", key, "no such thing")

    state = await bench.state()

    assert state.wrong_keys == {key: "set"}
    assert (state.ready, state.waiting, state.in_flight) == (0, 0, 0)


@pytest.mark.usefixtures("overwritten")
async def test_whatever_the_keys_hold_there_is_a_state(bench: Workbench) -> None:
    junk: Any = b"\xff\x00 junk"
    for key in (KEYS.counters, KEYS.maintenance, KEYS.arrivals, KEYS.limit, KEYS.workers):
        bench.run("HSET", key, junk, junk, "rate", "1e999", "state", junk, "empty_at", junk, "promoted_at", "9" * 40)
    bench.run("RPUSH", KEYS.samples, junk, b"7 [1]", b"8 {", b"9 " + b"[" * 5_000)
    bench.run("SET", KEYS.rate, junk)
    bench.run("SET", KEYS.pause, junk)
    bench.push(b"a")

    state = await bench.state()

    assert (state.ready, state.rate, state.permits_until_us, state.samples) == (1, 0.0, 0, ())
    assert (state.paused_ms, state.oldest_ready_ms, state.maintained_ms) == (0, None, None)


async def test_a_full_server_a_replica_and_one_that_cannot_write_to_disk_are_looked_at_all_the_same(
    server_binary: ServerBinary,
) -> None:
    with (
        RedisServer(server_binary, {"enable-protected-configs": "yes", "save": "3600 1"}) as server,
        Redis.from_url(server.url) as client,
    ):
        link = link_to(server.url, timeout_seconds=5)
        bench = Workbench(client, link)
        bench.push(b"a")
        client.config_set("maxmemory", 1)
        assert (await bench.state()).ready == 1

        client.config_set("maxmemory", 0)
        client.config_set("dir", "/proc")  # where nobody can make a file, whatever the user
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that failed")
        with pytest.raises(ResponseError, match="MISCONF"):
            client.set("a", "b")
        assert (await bench.state()).ready == 1

        client.slaveof("127.0.0.1", "1")
        assert (await bench.state()).ready == 1
        await link.disconnect()
