"""release: a worker that stops gives its jobs back to the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from worker.broker.move_limits import SUSPICIOUS_CRASHES

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


async def test_a_released_job_is_ready_at_once_and_in_flight_nowhere(bench: Workbench) -> None:
    job = bench.take_one()

    assert await bench.moves.release([job]) == [True]

    assert bench.in_flight() == []
    assert bench.again() == [job.ref]
    assert bench.record(job)["lease_token"] == b""


async def test_released_jobs_go_before_all_others(bench: Workbench) -> None:
    # given one that is ready again, one that is new, and one in flight
    waiting = bench.take_one(b"waiting")
    held = bench.take_one(b"held")
    await bench.crash(waiting)
    bench.push(b"new")

    # when the last is released
    await bench.moves.release([held])

    # then it comes first
    assert [job.raw for job in bench.take().jobs] == [b"held", b"waiting", b"new"]


async def test_jobs_released_together_keep_their_order(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3")

    await bench.moves.release(bench.take().jobs)

    assert [job.raw for job in bench.take().jobs] == [b"1", b"2", b"3"]


async def test_the_calls_made_are_kept_and_no_crash_is_counted(bench: Workbench) -> None:
    job = bench.take_one()
    job.attempts = 4

    await bench.moves.release([job])

    (again,) = bench.take().jobs
    assert (again.attempts, again.crashes) == (4, 0)
    assert "crashes" not in bench.counters()


async def test_what_is_known_of_the_calls_is_kept(bench: Workbench) -> None:
    job = bench.take_one()
    job.progress = b"news"
    await bench.moves.release([job])

    (again,) = bench.take().jobs
    assert again.progress == b"news"

    again.progress = b""
    await bench.moves.release([again])
    assert [job.progress for job in bench.take().jobs] == [b"news"]


async def test_a_suspect_stays_one_and_is_the_next_to_run_alone(bench: Workbench) -> None:
    suspects = []
    for message in (b"1", b"2"):
        job = bench.take_one(message)
        bench.run("HSET", bench.record_key(job), "crashes", SUSPICIOUS_CRASHES)
        suspects.append(job)

    await bench.moves.release([suspects[1]])
    await bench.moves.release([suspects[0]])

    assert bench.again() == []
    assert bench.suspects() == [suspects[0].ref, suspects[1].ref]


async def test_each_job_of_a_call_gets_its_own_answer(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3", b"4")
    jobs = bench.take().jobs
    await bench.moves.complete([bench.completion(jobs[3])])

    answers = await bench.moves.release([jobs[0], replace(jobs[1], lease_token="not this one"), jobs[2], jobs[3]])

    assert answers == [True, False, True, False]
    assert sorted(bench.again()) == sorted([jobs[0].ref, jobs[2].ref])
    assert bench.in_flight() == [jobs[1].ref]
    assert bench.counters()["released"] == 2


@pytest.mark.parametrize("why", ["repeated", "stale token"])
async def test_a_job_that_is_not_ours_any_more_stays_as_it_is(bench: Workbench, why: str) -> None:
    job = bench.take_one()
    if why == "repeated":
        await bench.moves.release([job])
    else:
        await bench.crash(job)
        bench.take()
    before = bench.snapshot()
    job.attempts = 7

    assert await bench.moves.release([job]) == [False]

    assert bench.snapshot() == before


@pytest.mark.parametrize("damage", ["deleted", "overwritten", "without its crashes"])
async def test_a_destroyed_record_does_not_stop_the_others(bench: Workbench, damage: str) -> None:
    bench.push(b"1", b"2", b"3")
    jobs = bench.take().jobs
    record = bench.record_key(jobs[1])
    if damage == "without its crashes":
        bench.run("HDEL", record, "crashes")
    else:
        bench.run("DEL", record)
    if damage == "overwritten":
        bench.run("SET", record, "somebody's own")

    assert await bench.moves.release(jobs) == [True, damage == "without its crashes", True]

    if damage == "overwritten":
        assert bench.run("GETDEL", record) == b"somebody's own"


async def test_a_call_with_no_jobs_changes_nothing(bench: Workbench) -> None:
    assert await bench.moves.release([]) == []
    assert bench.snapshot() == {}
