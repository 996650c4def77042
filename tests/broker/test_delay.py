"""delay: a job in flight is put aside until a moment."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from worker.broker.records import Delay

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


async def test_a_delayed_job_is_in_nobodys_hands_and_waits_for_its_moment(bench: Workbench) -> None:
    job = bench.take_one(b"a message")
    before = bench.now_ms()

    assert await bench.delay(job, seconds=60.5) == [True]

    assert bench.in_flight() == []
    assert bench.delayed() == [job.ref]
    assert before + 60_500 <= float(bench.run("ZSCORE", bench.keys.delayed, job.ref)) <= bench.now_ms() + 60_500
    assert bench.record(job)["lease_token"] == b""
    assert bench.record(job)["raw"] == b"a message"


async def test_the_moment_is_kept_to_the_millisecond_a_year_ahead(bench: Workbench) -> None:
    job, year = bench.take_one(), 366 * 24 * 3600.0

    await bench.delay(job, seconds=year)

    waits_ms = float(bench.run("ZSCORE", bench.keys.delayed, job.ref)) - bench.now_ms()
    assert year * 1000 - 10_000 < waits_ms <= year * 1000


async def test_a_part_of_a_millisecond_is_never_too_early(bench: Workbench) -> None:
    bench.push(b"0 ms", b"0.1 ms")
    jobs = bench.take().jobs

    await bench.moves.delay([Delay(job, seconds) for job, seconds in zip(jobs, (0, 0.0001), strict=True)])

    due = [float(bench.run("ZSCORE", bench.keys.delayed, job.ref)) for job in jobs]
    assert due[1] == due[0] + 1


async def test_the_calls_made_are_kept_and_no_crash_is_counted(bench: Workbench) -> None:
    job = bench.take_one()
    job.attempts = 4

    await bench.delay(job)

    assert bench.record(job)["attempts"] == b"4"
    assert "crashes" not in bench.record(job)


async def test_each_job_of_a_call_gets_its_own_answer_and_its_own_delay(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3", b"4")
    jobs = bench.take().jobs
    await bench.moves.complete([bench.completion(jobs[3])])

    answers = await bench.moves.delay(
        [
            Delay(jobs[0], 20),
            Delay(replace(jobs[1], lease_token="not this one"), 5),
            Delay(jobs[2], 10),
            Delay(jobs[3], 5),
        ]
    )

    assert answers == [True, False, True, False]
    assert bench.delayed() == [jobs[2].ref, jobs[0].ref]
    assert bench.in_flight() == [jobs[1].ref]
    assert bench.counters()["delayed"] == 2


@pytest.mark.parametrize("why", ["repeated", "stale token"])
async def test_a_job_that_is_not_ours_any_more_stays_as_it_is(bench: Workbench, why: str) -> None:
    job = bench.take_one()
    if why == "repeated":
        await bench.delay(job)
    else:
        await bench.crash(job)
        bench.take()
    before = bench.snapshot()
    job.attempts = 7

    assert await bench.delay(job, seconds=5) == [False]

    assert bench.snapshot() == before


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
async def test_a_destroyed_record_does_not_stop_the_others(bench: Workbench, damage: str) -> None:
    bench.push(b"1", b"2")
    jobs = bench.take().jobs
    bench.run("DEL", bench.record_key(jobs[0]))
    if damage == "overwritten":
        bench.run("SET", bench.record_key(jobs[0]), "somebody's own")

    assert await bench.delay(*jobs) == [False, True]

    if damage == "overwritten":
        assert bench.run("GETDEL", bench.record_key(jobs[0])) == b"somebody's own"


async def test_a_call_with_no_jobs_changes_nothing(bench: Workbench) -> None:
    assert await bench.moves.delay([]) == []
    assert bench.snapshot() == {}
