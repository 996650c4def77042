"""complete keeps both streams within their bytes, whatever is written and whoever else writes to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.broker.keys import ledger_of
from worker.broker.stream_bounds import StreamBounds

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

#: Small, so that tests are quick; parts are a sixteenth of it.
BOUND = 2_000_000
LARGEST_EVENT = 262_144
#: What a bound may be passed by: the entry that closes a part, and what the server reckons for its index.
SOME_MORE = 1.1


@pytest.fixture
def small(bench: Workbench) -> Workbench:
    """The queue under small bounds of bytes alone."""
    return bench.under(bounds=StreamBounds(BOUND, BOUND), results_maxlen=1_000_000, dead_maxlen=1_000_000)


async def write(
    bench: Workbench, count: int, size: int, *, message: bytes = b"", outcome: str = "refused", batch: int = 50
) -> None:
    """End jobs with events of this size, and where there is a message, with dead letters."""
    while count > 0:
        bench.push(*[message or b"a job"] * min(batch, count))
        while jobs := bench.take(batch).jobs:
            count -= len(jobs)
            await bench.moves.complete(
                [
                    bench.completion(job, event=b"e" * size, outcome=outcome, is_dead_letter=bool(message))
                    for job in jobs
                ]
            )


def held(bench: Workbench, stream: str = "") -> int:
    """What a stream takes, as the server itself counts it."""
    return int(bench.client.memory_usage(stream or bench.broker_options.results, samples=0) or 0)


@pytest.mark.parametrize("size", [1, 600, 1_500, 3_000, 5_000, 70_000, LARGEST_EVENT])
async def test_events_of_any_size_fill_the_bound_and_do_not_pass_it(small: Workbench, size: int) -> None:
    highest = 0
    for _ in range(15):  # one and a half times the bound
        await write(small, BOUND // 10 // (size + 100) + 1, size, batch=20)
        highest = max(highest, held(small))

    assert highest <= BOUND * SOME_MORE
    assert sum(len(event) + 100 for event in small.events()) >= BOUND * 0.6


async def test_a_burst_of_the_largest_events_after_many_small_ones_keeps_the_bound(small: Workbench) -> None:
    await write(small, 3_000, 600)

    for _ in range(20):
        await write(small, 1, LARGEST_EVENT)
        assert held(small) <= BOUND * SOME_MORE


async def test_small_events_after_large_ones_drop_no_more_than_they_need(small: Workbench) -> None:
    await write(small, 10, 150_000)

    await write(small, 400, 1_500)

    assert BOUND * 0.8 <= held(small) <= BOUND * SOME_MORE


async def test_one_call_with_many_large_ends_keeps_the_bound_too(small: Workbench) -> None:
    await write(small, 90, 20_000, message=b"m" * 64_000, batch=15)

    for stream in (small.broker_options.results, small.broker_options.dead):
        assert held(small, stream) <= BOUND * SOME_MORE


async def test_dead_letters_of_junk_fill_their_bound_and_do_not_pass_it(small: Workbench) -> None:
    highest = 0
    for _ in range(60):
        await write(small, 1, 600, message=b"m" * 1024 * 1024, outcome="rejected")
        highest = max(highest, held(small, small.broker_options.dead))

    assert BOUND * 0.7 <= highest <= BOUND * SOME_MORE  # not every allocator rounds up as much as is reckoned
    assert {len(message) for _, message in small.dead_letters()} == {64 * 1024}


async def test_dead_letters_of_large_jobs_do_not_pass_their_bound(small: Workbench) -> None:
    await write(small, 60, 600, message=b"m" * 1024 * 1024, batch=15)

    assert held(small, small.broker_options.dead) <= BOUND * SOME_MORE
    assert {len(message) for _, message in small.dead_letters()} == {1024 * 1024}


async def test_the_newest_event_stays_whatever_its_size(bench: Workbench) -> None:
    tiny = bench.under(bounds=StreamBounds(1, 1))

    for size in (1, 10_000, 10):
        await write(tiny, 3, size, message=b"a job")
        assert [len(event) for event in tiny.events()] == [size]
        assert len(tiny.dead_letters()) == 1


async def test_the_oldest_events_go(small: Workbench) -> None:
    for number in range(3_000):
        small.push(b"a job")
        (job,) = small.take(1).jobs
        await small.moves.complete([small.completion(job, event=b"%06d" % number + b"e" * 900)])

    numbers = [int(event[:6]) for event in small.events()]
    assert numbers == list(range(3_000 - len(numbers), 3_000))
    assert BOUND * 0.8 / 1_000 < len(numbers) < BOUND / 900


@pytest.mark.parametrize("sizes", [[1_500] * 4_000, [600] * 3_000 + [LARGEST_EVENT] * 12, [LARGEST_EVENT] * 12])
async def test_a_stream_of_the_version_before_is_brought_within_the_bound_by_the_next_event(
    small: Workbench, sizes: list[int]
) -> None:
    for size in sizes:
        small.client.xadd(small.broker_options.results, {"event": b"e" * size})
    before = held(small)

    await write(small, 1, 1_500)

    assert before > BOUND * SOME_MORE
    assert BOUND * 0.5 <= held(small) <= BOUND * SOME_MORE
    await write(small, 300, 1_500)
    assert held(small) <= BOUND * SOME_MORE


async def test_events_that_others_write_beside_ours_count(small: Workbench) -> None:
    for _ in range(30):
        await write(small, 80, 1_500, batch=80)
        for _ in range(20):
            small.client.xadd(small.broker_options.results, {"event": b"e" * 6_000})

        assert held(small) <= BOUND * 1.15


@pytest.mark.parametrize("how", ["trimmed", "every second one deleted", "all deleted", "stream deleted"])
async def test_what_somebody_deleted_makes_room_for_others(small: Workbench, how: str) -> None:
    await write(small, 1_500, 1_500)
    ids = [entry for entry, _ in small.client.xrange(small.broker_options.results)]
    if how == "trimmed":
        small.client.xtrim(small.broker_options.results, maxlen=300, approximate=False)
    elif how == "stream deleted":
        small.client.delete(small.broker_options.results)
    else:
        small.client.xdel(small.broker_options.results, *(ids[::2] if how == "every second one deleted" else ids))
    oldest = small.events()[:1]
    room = BOUND * 15 // 16 - held(small)

    await write(small, max(0, room - BOUND // 8) // 1_700, 1_500)

    assert small.events()[:1] == oldest or not oldest
    await write(small, 1_500, 1_500)
    assert BOUND * 0.8 <= held(small) <= BOUND * SOME_MORE


async def test_letters_that_were_replayed_make_room_for_others(small: Workbench) -> None:
    """Else an old letter that nobody has looked at would go, though there is nearly none beside it."""
    await write(small, 1, 600, message=b"an old one")
    ((old, _),) = small.client.xrange(small.broker_options.dead)

    for _ in range(60):
        await write(small, 5, 600, message=b"m" * 20_000)
        newer = [entry.decode() for entry, _ in small.client.xrange(small.broker_options.dead, min=f"({old.decode()}")]
        small.replay([(entry, b"again") for entry in newer])
        small.run("DEL", small.keys.queue)

    assert small.client.xrange(small.broker_options.dead, count=1)[0][0] == old


async def test_small_letters_that_were_replayed_do_not_let_large_ones_pass_the_bound(small: Workbench) -> None:
    for _ in range(25):
        await write(small, 2, 600, message=b"m" * 64_000)
        await write(small, 20, 600, message=b"m" * 700)
        letters = small.client.xrange(small.broker_options.dead)
        others = [entry for entry, fields in letters if len(fields[b"message"]) < 1_000]
        small.client.xdel(small.broker_options.dead, *others)

        assert held(small, small.broker_options.dead) <= BOUND * 1.15


@pytest.mark.parametrize(
    "damage",
    ["lost", "some words", f"1 {'9' * 40};", "5 5000;some words", "5 5000;1 1 1 999999999999999 0 0", "-1 -1;"],
)
async def test_a_ledger_that_was_lost_or_overwritten_is_made_anew(small: Workbench, damage: str) -> None:
    await write(small, 1_500, 1_500)
    ledger = ledger_of(small.broker_options.results)
    if damage == "lost":
        small.run("DEL", ledger)
    else:
        small.run("SET", ledger, damage)

    await write(small, 200, 1_500)

    assert BOUND * 0.7 <= held(small) <= BOUND * SOME_MORE


async def test_a_stream_that_is_bounded_by_its_length_keeps_that_length(small: Workbench) -> None:
    both = small.under(results_maxlen=200)

    await write(both, 5_000, 600, batch=100)
    assert 200 <= len(both.events()) < 310

    await write(both, 300, 40_000, batch=20)
    assert held(both) <= BOUND * SOME_MORE


async def test_queues_that_share_a_stream_share_its_bound(small: Workbench) -> None:
    other = small.beside("another queue")

    for _ in range(20):
        await write(small, 60, 1_500)
        await write(other, 60, 1_500)
        assert held(small) <= BOUND * SOME_MORE
    small.client.delete(*small.client.keys("lw:1:another queue:*"))


async def test_workers_with_other_bounds_do_not_upset_each_other(small: Workbench) -> None:
    other = small.under(bounds=StreamBounds(BOUND // 4, BOUND))

    for _ in range(10):
        await write(small, 200, 1_500)
        await write(other, 200, 1_500)

    assert held(small) <= BOUND // 4 * SOME_MORE


async def test_pending_events_of_a_group_do_not_count_as_events(small: Workbench) -> None:
    """A group that never acknowledges has a list that grows; that must not cost it the events."""
    small.client.xgroup_create(small.broker_options.results, "readers", id="0", mkstream=True)
    for _ in range(60):
        await write(small, 100, 1_500)
        small.client.xreadgroup("readers", "one", {small.broker_options.results: ">"}, count=1_000)

    assert sum(len(event) for event in small.events()) >= BOUND * 0.8


@pytest.mark.parametrize("how", ["one deleted", "ledger lost"])
async def test_pending_events_cost_no_event_where_the_server_is_asked_what_the_stream_takes(
    small: Workbench, how: str
) -> None:
    """It counts them, also those of events that are gone, and so says far more than what the events take."""
    small.client.xgroup_create(small.broker_options.results, "readers", id="0", mkstream=True)
    for _ in range(30):
        await write(small, 1_000, 10, batch=100)
        small.client.xreadgroup("readers", "one", {small.broker_options.results: ">"}, count=2_000)
    before = len(small.events())
    assert held(small) > BOUND * SOME_MORE
    if how == "ledger lost":
        small.run("DEL", ledger_of(small.broker_options.results))
    else:
        small.client.xdel(
            small.broker_options.results, small.client.xrange(small.broker_options.results, count=1)[0][0]
        )

    await write(small, 100, 1_500)
    assert len(small.events()) >= before * 0.8

    await write(small, 2_000, 1_500)
    assert BOUND * 0.6 <= sum(len(event) + 100 for event in small.events()) <= BOUND


async def test_most_calls_write_one_key_more_and_that_is_all(small: Workbench) -> None:
    await write(small, 10, 600)
    small.push(b"a job")
    (job,) = small.take(1).jobs
    small.run("CONFIG", "RESETSTAT")

    await small.moves.complete([small.completion(job, event=b"e" * 600)])

    calls = {name.removeprefix("cmdstat_"): told["calls"] for name, told in small.client.info("commandstats").items()}
    assert not calls.keys() & {"xlen", "xtrim", "memory|usage", "get"}
    assert (calls["mget"], calls["set"]) == (1, 1)


@pytest.mark.parametrize(
    ("configured", "maxmemory", "bounds"),
    [
        ((128, 64), 0, (128, 64)),
        ((128, 64), 1024, (128, 64)),
        ((128, 64), 256, (128, 64)),
        ((128, 64), 64, (32, 16)),
        ((128, 64), 4, (4, 4)),
        ((2, 1), 4, (2, 1)),
    ],
)
def test_a_small_server_lowers_the_bounds(configured: tuple[int, int], maxmemory: int, bounds: tuple[int, int]) -> None:
    mib = 1024 * 1024
    found = StreamBounds(configured[0] * mib, configured[1] * mib, maxmemory * mib)

    assert (found.results_bytes // mib, found.dead_bytes // mib) == bounds
    assert found.are_lowered is (bounds != configured)
