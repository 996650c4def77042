"""sample: totals for rates, and how long the oldest message can have waited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.broker.state import SAMPLE_MS

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


async def sample_after(bench: Workbench, seconds: float) -> float | None:
    """Let so many seconds pass, and keep a sample; returns the bound of the oldest message's age."""
    age_all(bench, round(seconds * 1000))
    assert await bench.sample()
    state = await bench.state()
    return None if state.oldest_ready_ms is None else (state.server_ms - state.oldest_ready_ms) / 1000


def age_all(bench: Workbench, milliseconds: int) -> None:
    """Set every time that samples have noted back."""
    for at, text in enumerate(bench.client.lrange(bench.keys.samples, 0, -1)):
        noted, _, totals = text.partition(b" ")
        bench.client.lset(bench.keys.samples, at, b"%d %s" % (int(noted) - milliseconds, totals))
    for field, text in bench.client.hgetall(bench.keys.arrivals).items():
        oldest, *marks = text.split()
        moved = [b"%d" % (int(oldest) - milliseconds)]
        for mark in marks:
            noted, _, count = mark.partition(b":")
            moved.append(b"%d:%s" % (int(noted) - milliseconds, count))
        bench.client.hset(bench.keys.arrivals, field, b" ".join(moved))
    empty_at = bench.client.hget(bench.keys.maintenance, "empty_at")
    if empty_at:
        bench.client.hset(bench.keys.maintenance, "empty_at", int(empty_at) - milliseconds)


@pytest.mark.usefixtures("overwritten")
async def test_a_sample_is_kept_every_ten_seconds_by_whoever_comes_first(bench: Workbench) -> None:
    bench.run("HSET", bench.keys.counters, "taken", 7, "outcome:locked", 5, "broken", "a word")

    assert await bench.sample()
    assert not await bench.sample()
    age_all(bench, SAMPLE_MS)
    assert await bench.sample()

    state = await bench.state()
    assert [dict(sample.totals) for sample in state.samples] == [{"taken": 7, "outcome:locked": 5}] * 2
    assert state.samples[1].at_ms - state.samples[0].at_ms >= SAMPLE_MS


async def test_five_minutes_of_samples_are_kept_and_they_expire(bench: Workbench) -> None:
    for _ in range(40):
        await sample_after(bench, 10)

    state = await bench.state()
    assert 31 <= len(state.samples) <= 33
    assert state.server_ms - state.samples[0].at_ms >= 300_000
    assert 0 < bench.run("PTTL", bench.keys.samples) <= 600_000


async def test_a_backlog_that_moves_is_as_old_as_what_is_left_of_it(bench: Workbench) -> None:
    """One message comes each ten seconds, and one is taken; each waits for a minute. No list is ever empty."""
    await sample_after(bench, 10)
    ages = []
    for number in range(60):
        bench.push(b"message %d" % number)
        if number >= 6:
            bench.take(1)
        ages.append(await sample_after(bench, 10))

    # The oldest one came six rounds ago; its age is known to one round.
    assert all(age is not None and 55 <= age <= 75 for age in ages[20:]), ages[20:]


async def test_without_takes_the_oldest_grows_old(bench: Workbench) -> None:
    await sample_after(bench, 10)
    for number in range(30):
        bench.push(b"message %d" % number)
        age = await sample_after(bench, 10)

    assert age is not None
    assert 295 <= age <= 315


async def test_a_queue_that_was_empty_a_moment_ago_has_nothing_old(bench: Workbench) -> None:
    for _ in range(3):
        await sample_after(bench, 1000)
    bench.push(b"new")

    state = await bench.state()

    assert state.oldest_ready_ms is not None
    assert state.server_ms - state.oldest_ready_ms < 5_000


async def test_messages_taken_from_the_new_end_leave_the_oldest_as_old_as_it_is(bench: Workbench) -> None:
    await sample_after(bench, 10)
    bench.push(b"the oldest")
    await sample_after(bench, 100)
    for number in range(20):
        bench.push(b"probe %d" % number)
        assert bench.take(1, which_new="newest").jobs[0].raw == b"probe %d" % number
        age = await sample_after(bench, 10)

    assert age is not None
    assert 290 <= age <= 320


async def test_a_low_priority_that_starves_is_seen_behind_others_that_do_not(bench: Workbench) -> None:
    await sample_after(bench, 10)
    bench.run("LPUSH", bench.keys.priority_lists[3], b"starving")
    for number in range(20):
        bench.push(b"message %d" % number, b"another %d" % number)
        bench.take(2)
        age = await sample_after(bench, 10)

    assert age is not None
    assert 190 <= age <= 220

    bench.take(1)
    assert (await bench.state()).ready == 0
    assert (await bench.state()).oldest_ready_ms is None


async def test_messages_that_others_delete_do_not_make_the_rest_older(bench: Workbench) -> None:
    await sample_after(bench, 10)
    bench.push(b"a", b"b", b"c")
    await sample_after(bench, 100)
    bench.client.delete(bench.keys.queue)
    await sample_after(bench, 10)
    bench.push(b"d")

    age = await sample_after(bench, 10)

    assert age is not None
    assert age <= 25


async def test_the_notes_of_a_long_backlog_stay_short(bench: Workbench) -> None:
    begun_ms = bench.now_ms()
    await sample_after(bench, 10)
    for number in range(300):
        bench.push(b"message %d" % number)
        age = await sample_after(bench, 10)

    assert len(bench.client.hget(bench.keys.arrivals, "0").split()) <= 62
    assert age is not None
    assert 2_990 <= age <= 3_010 + (bench.now_ms() - begun_ms) / 1000

    # Of the newer messages the time is known well.
    while bench.client.llen(bench.keys.queue) > 10:
        bench.take(10)
    age = await sample_after(bench, 10)
    assert age is not None
    assert 95 <= age <= 130 + (bench.now_ms() - begun_ms) / 1000


@pytest.mark.usefixtures("overwritten")
async def test_notes_that_somebody_overwrote_are_begun_anew(bench: Workbench) -> None:
    bench.push(b"a")
    bench.run("HSET", bench.keys.arrivals, "0", "nonsense 1:x :: 9999999999999999999999:1 7:7")
    bench.run("RPUSH", bench.keys.samples, "nonsense")
    bench.run("HSET", bench.keys.counters, "taken", "a word")
    bench.run("HSET", bench.keys.maintenance, "taken_newest", "a word")

    assert await bench.sample()

    assert (await bench.state()).ready == 1
