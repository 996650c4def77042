"""lost_takes: a take whose answer was lost is no crash. Its worker lives, and never had the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.broker.move_limits import LOST_TAKE_MS, SUSPICIOUS_CRASHES

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


async def test_jobs_of_a_take_that_was_never_heard_of_come_back_without_a_crash(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    jobs = bench.take().jobs
    await bench.moves.note_lost_takes([jobs[0].lease_token])

    recovered = await bench.crash(*jobs)

    assert recovered.count == 2
    assert bench.again() == [job.ref for job in jobs]
    assert [job.crashes for job in bench.take().jobs] == [0, 0]
    assert "crashes" not in bench.counters()


async def test_the_note_may_come_before_the_take(bench: Workbench) -> None:
    """A take may be on its way to a server that stands still, while its worker has given it up."""
    token = bench.new_token()
    await bench.moves.note_lost_takes([token])
    bench.push(b"a job")
    jobs = bench.take(token=token).jobs

    await bench.crash(*jobs)

    assert [job.crashes for job in bench.take().jobs] == [0]


async def test_a_crash_before_or_after_it_counts_all_the_same(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.crash(job)
    (job,) = bench.take().jobs
    await bench.moves.note_lost_takes([job.lease_token])
    await bench.crash(job)
    (job,) = bench.take().jobs
    assert job.crashes == 1

    await bench.crash(job)

    assert bench.record(job)["crashes"] == b"2"
    assert bench.counters()["crashes"] == 2


async def test_the_jobs_of_other_takes_are_a_crash_richer_as_ever(bench: Workbench) -> None:
    lost, dead = bench.take_one(b"1"), bench.take_one(b"2")
    await bench.moves.note_lost_takes([lost.lease_token])

    await bench.crash(lost, dead)

    assert {job.raw: job.crashes for job in bench.take().jobs} == {b"1": 0, b"2": 1}
    assert bench.counters()["crashes"] == 1


async def test_a_suspect_that_was_never_heard_of_stays_one_and_is_not_poisoned(bench: Workbench) -> None:
    job = bench.take_one()
    bench.run("HSET", bench.record_key(job), "crashes", bench.broker_options.max_deliveries - 1)
    await bench.moves.note_lost_takes([job.lease_token])

    recovered = await bench.crash(job)

    assert (recovered.count, recovered.poisoned) == (1, [])
    assert bench.suspects() == [job.ref]
    assert bench.broker_options.max_deliveries - 1 >= SUSPICIOUS_CRASHES


async def test_notes_are_kept_for_a_day_and_no_longer(bench: Workbench) -> None:
    bench.run("HSET", bench.keys.lost_takes, "old", bench.now_ms() - LOST_TAKE_MS - 1000, "nonsense", "a word")

    await bench.moves.note_lost_takes(["take1", "take2"])

    assert set(bench.client.hkeys(bench.keys.lost_takes)) == {b"take1", b"take2"}
    assert 0 < bench.client.pttl(bench.keys.lost_takes) <= LOST_TAKE_MS


@pytest.mark.parametrize("times", [1, 3])
async def test_repeating_it_is_harmless(bench: Workbench, times: int) -> None:
    for _ in range(times):
        await bench.moves.note_lost_takes(["take1"])

    assert bench.client.hlen(bench.keys.lost_takes) == 1
