"""``lock-worker workers`` lists what the workers of the fleet have registered."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tests.cli.registered import KEYS, register
from worker.runtime.members import Activity, ApiError

if TYPE_CHECKING:
    import redis

    from tests.cli.terminal import Terminal


def test_without_workers_it_says_so(terminal: Terminal) -> None:
    assert terminal.run("workers").stdout == "No worker is registered.\n"
    assert json.loads(terminal.run("workers", "--json").stdout) == []


def test_each_worker_is_listed_with_what_it_does(terminal: Terminal, redis_client: redis.Redis) -> None:
    error = ApiError(time.time() - 4, 500, "The API answered 500.")
    activity = Activity(slots=100, in_flight=7, last_error=error)
    register(redis_client, "lock-1@pod", ["moderation.lock", "b"], LEASE_SECONDS=6, activity=activity)

    (worker,) = json.loads(terminal.run("workers", "--json").stdout)

    assert (worker["name"], worker["version"], worker["slots"], worker["in_flight"]) == ("lock-1@pod", "1.0", 100, 7)
    assert (worker["queues"], worker["settings"]) == (["moderation.lock", "b"], {"LEASE_SECONDS": 6})
    assert (worker["last_error"]["status"], worker["last_error"]["detail"]) == (500, "The API answered 500.")
    assert json.loads(terminal.run("status", "--json").stdout)["workers"] == [worker]
    first, second = terminal.run("workers").stdout.splitlines()
    assert first.startswith("lock-1@pod: 7/100 slots, up ")
    assert second.endswith(" (500): The API answered 500.")


def test_workers_of_one_name_are_told_apart_by_their_names_in_redis(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    register(redis_client, "pod-7-ab", name="celery@pod", LEASE_SECONDS=8)
    register(redis_client, "pod-8-cd", name="celery@pod", LEASE_SECONDS=9)

    lines = terminal.run("workers").stdout.splitlines()

    assert [line.partition(":")[0] for line in lines] == ["celery@pod (pod-7-ab)", "celery@pod (pod-8-cd)"]
    found = json.loads(terminal.run("workers", "--json").stdout)
    assert [(each["name"], each["worker"]) for each in found] == [
        ("celery@pod", "pod-7-ab"),
        ("celery@pod", "pod-8-cd"),
    ]
    shown = " ".join(terminal.run("status").stdout.split())
    assert "LEASE_SECONDS: 8 (celery@pod (pod-7-ab)); 9 (celery@pod (pod-8-cd))" in shown


def test_a_worker_that_registered_little_is_listed_with_what_is_known_of_it(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    redis_client.hset(KEYS.workers, "old", f'{int(time.time() * 1000)} digest {{"version": "0.1"}}')

    assert terminal.run("workers").stdout == "old: 0/0 slots, version 0.1\n"
