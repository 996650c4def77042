"""How ``lock-worker cancel`` reads the jobs of a queue while others move them: none that stays is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from worker.broker.keys import Keys
from worker.cli.cancel.places import PAGE, count_jobs, pages

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

KEYS = Keys("moderation.lock")
NEW, AGAIN = KEYS.queue, KEYS.requeued


def ready(client: redis.Redis, meanwhile: Callable[[], object]) -> list[str]:
    """The messages of the ready jobs, in the order in which they are read; something happens after the first page."""
    read: list[str] = []
    for number, (_, entries) in enumerate(pages(client, KEYS, ["ready"])):
        if number == 0:
            meanwhile()
        read += [entry.raw.decode() for entry in entries]
    return read


def fill(client: redis.Redis, name: str, count: int) -> list[str]:
    """Put so many jobs on a list, the first one at the end where reading begins; return their messages."""
    names = [f"job-{number}" for number in range(count)]
    if name == NEW:
        client.rpush(name, *names)
    else:
        client.lpush(name, *names)
        for each in names:
            client.hset(f"{KEYS.record_prefix}{each}", "raw", each)
    return names


@pytest.mark.parametrize("name", [NEW, AGAIN])
@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 5 * PAGE])
def test_a_list_that_stands_still_is_read_once(redis_client: redis.Redis, name: str, count: int) -> None:
    jobs = fill(redis_client, name, count) if count else []

    assert ready(redis_client, lambda: None) == jobs
    assert count_jobs(redis_client, KEYS) == count


@pytest.mark.parametrize("more", [1, PAGE - 2, PAGE, 3 * PAGE])
def test_jobs_that_arrive_meanwhile_hide_none(redis_client: redis.Redis, more: int) -> None:
    jobs = fill(redis_client, NEW, 3 * PAGE)

    read = ready(redis_client, lambda: redis_client.lpush(NEW, *(f"new-{number}" for number in range(more))))

    assert set(jobs) <= set(read)
    if more < PAGE - 1:
        assert read == jobs  # none comes twice


@pytest.mark.parametrize("end", ["lpop", "rpop"])
@pytest.mark.parametrize("name", [NEW, AGAIN])
@pytest.mark.parametrize("fewer", [1, PAGE - 1, PAGE])
def test_jobs_that_are_taken_meanwhile_hide_none_of_the_others(
    redis_client: redis.Redis, name: str, end: str, fewer: int
) -> None:
    fill(redis_client, name, 3 * PAGE)

    read = ready(redis_client, lambda: getattr(redis_client, end)(name, fewer))

    left: Any = redis_client.lrange(name, 0, -1)
    assert {job.decode() for job in left} <= set(read)


def test_waiting_jobs_are_read_with_what_wakes_them(redis_client: redis.Redis) -> None:
    for number in range(3 * PAGE):
        redis_client.zadd(KEYS.delayed, {f"d-{number}": number})
        redis_client.zadd(KEYS.held, {f"hold:h-{number}": 0})
        for ref in (f"d-{number}", f"h-{number}"):
            redis_client.hset(f"{KEYS.record_prefix}{ref}", mapping={"raw": ref, "size": 7})
    redis_client.zadd(KEYS.leases, {"vanished": 1})

    found = [(place, entry) for place, entries in pages(redis_client, KEYS) for entry in entries]

    wakes = {entry.wake for _, entry in found}
    assert wakes == {("delayed", f"d-{number}", f"d-{number}") for number in range(3 * PAGE)} | {
        ("held", f"hold:h-{number}", f"h-{number}") for number in range(3 * PAGE)
    }
    assert {place for place, _ in found} == {"delayed", "held"}
    assert all(entry.size == 7 for _, entry in found)
    assert max(len(entries) for _, entries in pages(redis_client, KEYS)) <= PAGE
