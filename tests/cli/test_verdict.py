"""``lock-worker status`` begins with whether all is well, and if not, with what is wrong and what to do."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
import redis

from sandbox.redis_server import RedisServer
from tests.cli.registered import KEYS, register
from tests.cli.terminal import Terminal
from worker.runtime.members import Activity, ApiError, OpenBreaker

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary


def problems(terminal: Terminal, **settings: str) -> list[str]:
    """The codes of the problems. The first one is the verdict."""
    ended = terminal.run("status", "--json", **settings)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    first = found["problems"][:1]
    assert found["verdict"] == (f"{first[0]['text']} {first[0]['advice']}" if first else "well")
    return [problem["code"] for problem in found["problems"]]


def notes(terminal: Terminal) -> list[str]:
    """The codes of what is set on purpose."""
    return [note["code"] for note in json.loads(terminal.run("status", "--json").stdout)["notes"]]


def words(terminal: Terminal) -> str:
    """What people read, in one line."""
    return " ".join(terminal.run("status").stdout.split())


def test_a_fleet_that_works_is_well(terminal: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "lock-1@pod")
    redis_client.lpush("moderation.lock", "a")

    assert problems(terminal) == []
    assert terminal.run("status").stdout.splitlines()[0] == "well"


def test_without_workers_it_is_not_well_and_the_jobs_that_wait_are_counted(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    redis_client.lpush("moderation.lock", "a", "b")

    assert problems(terminal) == ["no_workers"]
    assert terminal.run("status").stdout.splitlines()[0] == "NOT WELL: No worker is registered, and 2 jobs wait."


def test_jobs_without_a_record_are_a_problem_until_an_operator_acknowledges_them(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    register(redis_client, "lock-1@pod")
    redis_client.hset(KEYS.counters, mapping={"taken": 2, "vanished": 2})

    assert problems(terminal) == ["vanished"]
    terminal.run("audit", "--acknowledge", "--reason", "sent again")
    assert problems(terminal) == []


def test_a_worker_that_was_killed_is_named_before_it_leaves_the_list(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    register(redis_client, "lock-1@pod")
    register(redis_client, "lock-2@pod", seconds_ago=13)

    assert terminal.run("status").stdout.startswith("NOT WELL: lock-2@pod (1 of 2 workers) said nothing for ")


def test_an_api_that_fails_a_token_that_it_refuses_and_a_pause_are_three_things(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    now = time.time()
    error = ApiError(now - 3, 500, "The API answered 500.")
    down = Activity(slots=10, breakers=(OpenBreaker("api_down", now - 90),), last_error=error)
    register(redis_client, "lock-1@pod", activity=down)
    assert problems(terminal) == ["api_down"]
    assert "NOT WELL: The API fails for the only worker, for 1 min " in words(terminal)
    assert ": The API answered 500. -> Look at the API" in words(terminal)
    assert "lock-1@pod: 0/10 slots" in words(terminal)
    assert "holds back: api_down for 1 min " in words(terminal)

    refused = Activity(slots=10, breakers=(OpenBreaker("token_refused", now - 5),))
    register(redis_client, "lock-2@pod", activity=refused)
    assert problems(terminal) == ["token_refused", "api_down"]
    assert "refuses the token of lock-2@pod (1 of 2 workers), for " in words(terminal)

    redis_client.delete(KEYS.workers)
    register(redis_client, "lock-1@pod")
    redis_client.set(KEYS.pause, "the API answered 429 to lock-1@pod", px=50_000)
    assert problems(terminal) == ["paused"]
    assert "another 4" in words(terminal)
    assert "the API answered 429 to lock-1@pod" in words(terminal)


def test_calls_that_fail_while_others_succeed_are_a_problem_and_no_lack_of_workers(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    error = ApiError(time.time() + 60, None, "The API gave no answer within 10 seconds.")
    register(redis_client, "lock-1@pod", activity=Activity(slots=10, last_error=error, calls=90, failed_calls=40))
    register(redis_client, "lock-2@pod", activity=Activity(slots=10, last_error=error, calls=100, failed_calls=50))
    redis_client.lpush("moderation.lock", "a")
    now_ms = int(time.time() * 1000)
    redis_client.hset(KEYS.maintenance, mapping={"empty_at": now_ms - 600_000, "promoted_at": now_ms + 60_000})

    assert problems(terminal) == ["calls_fail", "slow"]
    said = words(terminal)
    assert "50 of the last 100 calls failed, in half a minute: The API gave no answer within 10 seconds." in said
    assert "Failing calls hold the slots that these jobs wait for." in said

    few = Activity(slots=10, last_error=error, calls=100, failed_calls=10)
    register(redis_client, "lock-1@pod", activity=few)
    register(redis_client, "lock-2@pod", activity=few)
    assert problems(terminal) == ["slow"]


def test_a_backlog_that_waits_for_slots_asks_for_workers(terminal: Terminal, redis_client: redis.Redis) -> None:
    now_ms = int(time.time() * 1000)
    register(redis_client, "lock-1@pod")
    redis_client.lpush("moderation.lock", *range(50))
    redis_client.zadd(KEYS.leases, {str(number): now_ms for number in range(10)})
    redis_client.hset(KEYS.maintenance, mapping={"empty_at": now_ms - 600_000, "promoted_at": now_ms})

    assert problems(terminal) == ["slow"]
    assert "50 jobs wait, the oldest for 10 min" in words(terminal)
    assert "10 of 10 slots are in use. -> Add workers" in words(terminal)


def test_a_queue_that_nobody_looks_after_is_not_well(terminal: Terminal, redis_client: redis.Redis) -> None:
    now_ms = int(time.time() * 1000)
    register(redis_client, "lock-1@pod")
    redis_client.hset(KEYS.maintenance, "promoted_at", now_ms - 40_000)
    redis_client.zadd(KEYS.delayed, {"a": now_ms - 60_000, "b": now_ms + 60_000})

    assert problems(terminal) == ["not_maintained", "overdue"]


def test_jobs_that_failed_lately_count_and_those_before_do_not(terminal: Terminal, redis_client: redis.Redis) -> None:
    now_ms = int(time.time() * 1000)
    register(redis_client, "lock-1@pod")
    for seconds, finished, exhausted in ((320, 40, 4), (60, 130, 8)):
        totals = json.dumps({"finished": str(finished), "outcome:exhausted": str(exhausted)})
        redis_client.rpush(KEYS.samples, f"{now_ms - seconds * 1000} {totals}")

    redis_client.hset(KEYS.counters, mapping={"finished": 140, "outcome:exhausted": 9})
    assert problems(terminal) == []  # 5 of 100

    redis_client.hset(KEYS.counters, "outcome:exhausted", 14)
    assert problems(terminal) == ["jobs_fail"]
    assert "10 of the last 100 jobs failed, in five minutes: 10 exhausted." in words(terminal)

    redis_client.hset(KEYS.counters, mapping={"outcome:exhausted": 4, "outcome:poisoned": 1})
    assert problems(terminal) == ["jobs_fail"]


def test_rates_follow_from_the_samples(terminal: Terminal, redis_client: redis.Redis) -> None:
    now_ms = int(time.time() * 1000)
    redis_client.hset(KEYS.counters, mapping={"taken": 1000, "finished": 900, "outcome:locked": 900})
    for seconds, count in ((310, 300), (70, 860), (5, 899)):
        totals = json.dumps({"taken": str(count), "finished": str(count), "outcome:locked": str(count)})
        redis_client.rpush(KEYS.samples, f"{now_ms - seconds * 1000} {totals}")

    rates = json.loads(terminal.run("status", "--json").stdout)["rates"]

    assert rates["60s"]["taken"] == pytest.approx(140 / 70, rel=0.1)
    assert rates["300s"]["outcome:locked"] == pytest.approx(600 / 310, rel=0.1)
    assert any(line.split()[:1] == ["locked"] for line in terminal.run("status").stdout.splitlines())


def test_a_key_that_somebody_overwrote_is_named(terminal: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "lock-1@pod")
    redis_client.set(KEYS.delayed, "no zset")

    assert problems(terminal) == ["key_overwritten"]
    assert "The key lw:1:moderation.lock:delayed holds a string" in words(terminal)


def test_settings_in_which_workers_differ_are_named(terminal: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "one", LEASE_SECONDS=6)
    register(redis_client, "two", LEASE_SECONDS=7)

    assert problems(terminal) == ["settings_differ"]
    assert "must be the same for all of them: LEASE_SECONDS." in words(terminal)


def test_dead_letters_that_push_others_out_are_a_problem(terminal: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "lock-1@pod")
    for _ in range(100):
        redis_client.xadd("moderation.dead", {"event": "{}"})

    assert problems(terminal) == []
    assert problems(terminal, DEAD_MAXLEN="100") == ["dead_letters_full"]


def test_a_group_that_is_about_to_lose_events_is_a_problem(terminal: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "lock-1@pod")
    for _ in range(100):
        redis_client.xadd("moderation.results", {"event": "{}"})
    redis_client.xgroup_create("moderation.results", "billing", id="0")

    assert problems(terminal) == []
    assert problems(terminal, RESULTS_MAXLEN="100") == ["results_unread"]


def test_a_full_server_is_the_verdict(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary) as server, redis.Redis.from_url(server.url) as client:
        register(client, "lock-1@pod")
        client.config_set("maxmemory", "1")

        assert problems(Terminal({"REDIS_URL": server.url}, tmp_path))[:1] == ["redis_full"]


def test_what_others_wrote_cannot_reach_the_terminal(terminal: Terminal, redis_client: redis.Redis) -> None:
    evil = "\x1b]0;owned\x07\u202e"
    activity = Activity(breakers=(OpenBreaker(evil, 1.0),), last_error=ApiError(time.time(), None, evil))
    register(redis_client, f"lock{evil}", [f"queue{evil}"], LEASE_SECONDS=evil, activity=activity)
    register(redis_client, "other", LEASE_SECONDS=1)
    redis_client.set(KEYS.pause, evil, px=50_000)
    redis_client.hset(KEYS.counters, evil, 1)

    for command in ("status", "workers"):
        shown = terminal.run(command).stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "lock\\u001b" in shown


def test_running_text_fits_the_terminal(terminal: Terminal, redis_client: redis.Redis) -> None:
    error = ApiError(time.time(), 503, "The API answered 503 with a long sentence, " * 5)
    down = Activity(slots=10, breakers=(OpenBreaker("api_down", time.time() - 90),), last_error=error)
    for number in range(25):
        register(redis_client, f"lock-{number}@pod", activity=down)

    narrow, wide = (terminal.run("status", COLUMNS=str(columns)).stdout for columns in (80, 160))

    assert max(map(len, narrow.splitlines())) <= 80
    assert 80 < max(map(len, wide.splitlines())) <= 160
    assert "  and 5 workers more: lock-worker workers\n" in narrow


def test_watching_needs_a_terminal(terminal: Terminal) -> None:
    ended = terminal.run("status", "--watch")

    assert ended.returncode == 2
    assert "--watch needs a terminal" in ended.stderr


def test_watching_shows_what_changes_until_it_is_interrupted(terminal: Terminal, redis_client: redis.Redis) -> None:
    with terminal.screen("status", "--watch") as screen:
        screen.wait_for("NOT WELL: No worker is registered.")
        register(redis_client, "lock-1@pod")
        screen.wait_for("well\n\nQueue ")
        screen.interrupt()
        assert screen.wait() == 130


def test_workers_that_call_for_no_job_are_named_and_so_are_rules_whose_jobs_are_dry_runs(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    register(redis_client, "one", DRY_RUN=True)
    register(redis_client, "two", DRY_RUN=True)
    assert (problems(terminal), notes(terminal)) == ([], ["dry_run"])
    assert "well NOTE: No job is called by all 2 workers: DRY_RUN is set, and each job ends as would_lock." in words(
        terminal
    )

    register(redis_client, "two", DRY_RUN=False)
    assert (problems(terminal), notes(terminal)) == (["settings_differ"], ["dry_run"])
    assert "by one (1 of 2 workers)" in words(terminal)

    for worker in ("one", "two"):
        register(redis_client, worker, RULES_DRY_RUN="r-7,r-8")
    assert (problems(terminal), notes(terminal)) == ([], ["rules_dry_run"])
    assert "Jobs of some rules are not called (RULES_DRY_RUN): r-7,r-8." in words(terminal)
