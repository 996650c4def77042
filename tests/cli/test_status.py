"""The numbers of ``lock-worker status`` are those of the keys."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from sandbox.redis_server import RedisServer
from tests.cli.registered import register
from tests.cli.terminal import Terminal
from worker.broker.keys import Keys, ledger_of
from worker.flow_control.limit import Limit

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

KEYS = Keys("moderation.lock")


def status(terminal: Terminal) -> dict[str, Any]:
    ended = terminal.run("status", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


def fill(client: redis.Redis) -> None:
    now_ms = int(time.time() * 1000)
    for count, key in enumerate(
        [*KEYS.priority_lists, KEYS.arrived, KEYS.requeued, KEYS.suspects, KEYS.retries], start=1
    ):
        client.lpush(key, *range(count))
    client.zadd(KEYS.delayed, {"a": now_ms + 100_000, "b": now_ms + 200_000})
    client.zadd(KEYS.leases, {"c": now_ms, "d": now_ms, "e": now_ms})
    client.hset(
        KEYS.maintenance, mapping={"empty_at": now_ms - 60_000, "promoted_at": now_ms - 2_000, "recovered_at": 1}
    )
    client.hset(KEYS.counters, mapping={"finished": 12, "outcome:locked": 11})
    client.set(KEYS.pause, "the API said so", px=50_000)
    state = Limit(rate=12.5, by="lock-1@pod", status=429).to_json()
    client.hset(KEYS.limit, mapping={"version": 7, "rate": "12.500000", "state": state, "answered": 3})
    client.xadd("moderation.results", {"event": "{}"})
    for _ in range(2):
        client.xadd("moderation.dead", {"event": "{}", "message": ""})


def test_an_unused_queue_has_nothing_in_it(terminal: Terminal) -> None:
    found = status(terminal)
    assert found["ready"] == {
        "total": 0, "priorities": {"0": 0, "3": 0, "6": 0, "9": 0}, "arrived": 0, "requeued": 0, "retries": 0,
        "suspects": 0, "oldest_at_most_seconds": None,
    }  # fmt: skip
    assert found["delayed"] == {"total": 0, "due": 0, "next_due_seconds": None}
    assert (found["in_flight"], found["dead_letters"], found["results"], found["totals"]) == (0, 0, 0, {})
    assert (found["last_maintenance_seconds"], found["paused_seconds"]) == (None, None)
    assert (found["limit"], found["workers"], found["workable"]) == (None, [], 0)


def test_each_state_has_its_number(terminal: Terminal, redis_client: redis.Redis) -> None:
    fill(redis_client)
    found = status(terminal)
    ready = found["ready"]
    assert ready["priorities"] == {"0": 1, "3": 2, "6": 3, "9": 4}
    assert (ready["arrived"], ready["requeued"], ready["suspects"], ready["retries"]) == (5, 6, 7, 8)
    assert ready["total"] == 36
    assert 59 < ready["oldest_at_most_seconds"] < 120
    assert found["delayed"]["total"] == 2
    assert 40 < found["delayed"]["next_due_seconds"] <= 100
    assert (found["in_flight"], found["dead_letters"], found["results"]) == (3, 2, 1)
    assert 0 < found["paused_seconds"] <= 50
    assert found["limit"] == {"calls_per_second": 12.5, "by": "lock-1@pod", "status": 429}
    assert 1 < found["last_maintenance_seconds"] < 60
    assert found["totals"] == {"finished": 12, "outcome:locked": 11}


def test_people_read_the_same(terminal: Terminal, redis_client: redis.Redis) -> None:
    fill(redis_client)
    shown = terminal.run("status").stdout
    words = [line.split() for line in shown.splitlines()]
    for row in (
        ["ready", "36"],
        ["retries", "8"],
        ["delayed", "2"],
        ["in", "flight", "3"],
        ["dead", "letters", "2"],
        ["finished", "12"],
    ):
        assert any(line[: len(row)] == row for line in words), row
    assert "The API asked all workers to wait; they go on in " in shown
    assert "All workers keep to 12.5 calls a second" in shown
    assert "new ones wait for up to 1 min" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(("never", "due"), [("-inf", 1), ("inf", 0)])
def test_a_job_that_is_never_due_leaves_json_what_it_is(
    terminal: Terminal, redis_client: redis.Redis, never: str, due: int
) -> None:
    redis_client.zadd(KEYS.delayed, {"a": never})
    ended = terminal.run("status", "--json")
    assert "Infinity" not in ended.stdout
    assert status(terminal)["delayed"] == {"total": 1, "due": due, "next_due_seconds": None}
    assert "nan" not in terminal.run("status").stdout


@pytest.mark.parametrize(
    "limit", [{"rate": "a word"}, {"rate": "nan"}, {"rate": "0"}, {"rate": "9" * 400}, {"state": "a state"}]
)
def test_a_limit_that_makes_no_sense_is_none(
    terminal: Terminal, redis_client: redis.Redis, limit: dict[str, str]
) -> None:
    redis_client.hset(KEYS.limit, mapping=limit)  # type: ignore[arg-type]

    assert status(terminal)["limit"] is None


def test_a_limit_that_a_person_set_is_shown_though_nobody_tells_why(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    redis_client.hset(KEYS.limit, "rate", "0.5")

    assert status(terminal)["limit"] == {"calls_per_second": 0.5, "by": "", "status": 0}
    assert "All workers keep to 0.5 calls a second" in terminal.run("status").stdout


def stream(terminal: Terminal, number: int = 0, **settings: str) -> dict[str, Any]:
    """The results stream, or with 1 the dead letters, as programs are told of it."""
    ended = terminal.run("status", "--json", **settings)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout)["streams"][number])


def test_streams_that_are_not_there_yet_are_empty(terminal: Terminal) -> None:
    results, dead = stream(terminal), stream(terminal, 1)

    assert results == {
        "name": "moderation.results", "events": 0, "bytes": 0, "max_events": 100_000, "max_bytes": 134_217_728,
        "oldest_seconds": None, "groups": [],
    }  # fmt: skip
    assert (dead["name"], dead["events"], dead["max_bytes"], dead["groups"]) == ("moderation.dead", 0, 67_108_864, [])
    shown = terminal.run("status").stdout
    assert "  moderation.results: 0 of 100,000 events, 0.0 KiB of 128.0 MiB\n" in shown


def test_streams_are_reported_with_bytes_and_age_and_how_far_each_group_is(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    client: Any = redis_client
    now_ms = round(client.time()[0] * 1000)
    client.xadd("moderation.results", {"event": "an event"}, id=f"{now_ms - 60_000}-0")
    for _ in range(9):
        client.xadd("moderation.results", {"event": "an event"})
    client.set(ledger_of("moderation.results"), "1 10;?3 3000000 2 200")
    client.xadd("moderation.dead", {"event": "{}", "message": ""})
    client.xgroup_create("moderation.results", "slow", id="0")
    client.xgroup_create("moderation.results", "late", id="$")
    client.xgroup_create("moderation.dead", "redrive\u202e", id="0")
    client.xreadgroup("slow", "a consumer", {"moderation.results": ">"}, count=3)

    results, dead = stream(terminal), stream(terminal, 1)

    assert (results["events"], results["bytes"]) == (10, 3_000_210)
    assert 58 < results["oldest_seconds"] < 90
    assert results["groups"] == [
        {"name": "slow", "lag": 7, "pending": 3, "near_loss": False},
        {"name": "late", "lag": 0, "pending": 0, "near_loss": False},
    ]
    assert dead["groups"] == [{"name": "redrive\u202e", "lag": 1, "pending": 0, "near_loss": False}]
    shown = terminal.run("status").stdout
    assert "  moderation.results: 10 of 100,000 events, 2.9 MiB of 128.0 MiB\n" in shown
    assert "    the oldest is 1 min " in shown
    assert "    group slow: lag 7, pending 3\n" in shown
    assert "    group redrive\\u202e: lag 1, pending 0\n" in shown
    assert "WARNING" not in shown


@pytest.mark.parametrize("full", [{"RESULTS_MAXLEN": "105"}, {"RESULTS_MAX_BYTES": "3200"}], ids=["number", "bytes"])
def test_a_group_that_has_hardly_read_a_full_stream_is_warned_of(
    terminal: Terminal, redis_client: redis.Redis, full: dict[str, str]
) -> None:
    client: Any = redis_client
    for _ in range(100):
        client.xadd("moderation.results", {"event": "an event"})
    client.set(ledger_of("moderation.results"), "1 3000")
    for name, read in (("slow", 10), ("quick", 90)):
        client.xgroup_create("moderation.results", name, id="0")
        client.xreadgroup(name, "a consumer", {"moderation.results": ">"}, count=read)

    assert [group["near_loss"] for group in stream(terminal, 0, **full)["groups"]] == [True, False]
    assert [group["near_loss"] for group in stream(terminal)["groups"]] == [False, False]
    shown = terminal.run("status", **full).stdout.splitlines()
    at = shown.index("    group slow: lag 90, pending 10")
    assert shown[at + 1] == "      WARNING: 90 of 100 events are unread, and the stream is full:"
    assert sum("WARNING" in line for line in shown) == 1
    assert max(map(len, shown)) <= 80


def test_of_many_groups_people_are_shown_the_slowest(terminal: Terminal, redis_client: redis.Redis) -> None:
    client: Any = redis_client
    client.xadd("moderation.results", {"event": "an event"})
    for number in range(25):
        client.xgroup_create("moderation.results", f"group-{number:02}", id="$" if number else "0")

    shown = terminal.run("status").stdout

    assert shown.count("    group group-") == 20
    assert "    group group-00: lag 1, pending 0\n" in shown
    assert "    and 5 groups more, which have read more of it\n" in shown
    assert len(stream(terminal)["groups"]) == 25


def test_the_streams_of_a_full_server_can_be_looked_at_and_their_bound_is_its_own(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary) as server, redis.Redis.from_url(server.url) as client:
        client.xadd("moderation.results", {"event": "an event"})
        client.config_set("maxmemory", "64mb")
        own = Terminal({"REDIS_URL": server.url}, tmp_path)
        assert (stream(own)["max_bytes"], stream(own, 1)["max_bytes"]) == (32 * 1024 * 1024, 16 * 1024 * 1024)

        client.config_set("maxmemory", "1")

        assert stream(own)["events"] == 1
        assert own.run("status").returncode == 0


def test_where_info_is_forbidden_the_streams_are_reported_all_the_same(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary) as server, redis.Redis.from_url(server.url) as client:
        client.xadd("moderation.results", {"event": "an event"})
        client.acl_setuser("looker", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"])

        found = stream(Terminal({"REDIS_URL": server.url.replace("//", "//looker:x@")}, tmp_path))

    assert (found["events"], found["max_bytes"]) == (1, 134_217_728)


def test_looking_changes_nothing(terminal: Terminal, redis_client: redis.Redis) -> None:
    fill(redis_client)
    keys: Any = sorted(redis_client.keys())
    before = [redis_client.dump(key) for key in keys]
    status(terminal)
    assert sorted(redis_client.keys()) == keys
    assert [redis_client.dump(key) for key in keys] == before


def test_every_queue_that_a_worker_of_this_fleet_takes_or_took_from_is_shown(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    register(redis_client, "lock-1@pod", ["moderation.lock", "b"])
    redis_client.zadd(KEYS.queues, {"left": 1})
    for queue, count in (("b", 2), ("left", 3)):
        redis_client.lpush(f"{queue}\x06\x163", *range(count))
    redis_client.zadd(Keys("b").delayed, {"x": 1})
    redis_client.zadd(Keys("b").leases, {"y": 1})

    found = status(terminal)["queues"]
    shown = terminal.run("status").stdout

    assert found == [
        {"queue": "moderation.lock", "ready": 0, "delayed": 0, "in_flight": 0, "workers": ["lock-1@pod"]},
        {"queue": "b", "ready": 2, "delayed": 1, "in_flight": 1, "workers": ["lock-1@pod"]},
        {"queue": "left", "ready": 3, "delayed": 0, "in_flight": 0, "workers": []},
    ]
    assert "  b: 2 ready, 1 delayed, 1 in flight\n" in shown
    assert "  left: 3 ready, 0 delayed, 0 in flight; no worker takes from it\n" in shown


def test_workers_that_differ_in_what_must_be_the_same_are_named(terminal: Terminal, redis_client: redis.Redis) -> None:
    for worker, lease in (("one", 6), ("two", 6), ("three", 0.5)):
        register(redis_client, worker, ["moderation.lock"], LEASE_SECONDS=lease, DEAD_STREAM="dead")
    redis_client.hset(KEYS.workers, mapping={"long ago": "1 x {}", "nonsense": "a word"})

    found = status(terminal)

    assert [worker["name"] for worker in found["workers"]] == ["one", "three", "two"]
    (differing,) = found["settings_differ"].items()
    assert differing[0] == "LEASE_SECONDS"
    assert {each["value"]: set(each["workers"]) for each in differing[1]} == {6: {"one", "two"}, 0.5: {"three"}}
    assert "  LEASE_SECONDS: 6 (one, two); 0.5 (three)\n" in terminal.run("status").stdout.replace(
        "two, one", "one, two"
    )
