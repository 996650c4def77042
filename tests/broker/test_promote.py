"""promote: delayed jobs whose moment has come become ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.broker.move_limits import SUSPICIOUS_CRASHES, UPKEEP_JOBS

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.records import Delivery


async def delayed(bench: Workbench, *messages: bytes) -> list[Delivery]:
    """Jobs put aside for a minute."""
    jobs = [bench.take_one(message) for message in messages]
    await bench.delay(*jobs)
    return jobs


async def test_with_nothing_delayed_nothing_is_due(bench: Workbench) -> None:
    promoted = await bench.promote()

    assert (promoted.count, promoted.next_due_ms, promoted.next_deadline_ms) == (0, None, None)


async def test_a_due_job_becomes_ready_and_the_others_wait(bench: Workbench) -> None:
    due, waiting = await delayed(bench, b"due", b"waiting")
    bench.make_due(due)

    promoted = await bench.promote()

    assert promoted.count == 1
    assert promoted.next_due_ms is not None
    assert 50_000 < promoted.next_due_ms <= 60_000
    assert (bench.again(), bench.delayed()) == ([due.ref], [waiting.ref])
    assert bench.in_flight() == []


async def test_a_job_that_is_nearly_due_waits_until_it_is(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.delay(job, seconds=2)

    promoted = await bench.promote()

    assert promoted.count == 0
    assert promoted.next_due_ms is not None
    assert 0 < promoted.next_due_ms <= 2000
    assert (bench.again(), bench.delayed()) == ([], [job.ref])


async def test_promoted_jobs_come_before_what_is_new_the_longest_due_first(bench: Workbench) -> None:
    older, newer = await delayed(bench, b"older", b"newer")
    bench.make_due(newer)
    bench.run("ZADD", bench.keys.delayed, 1, older.ref)
    bench.push(b"new")

    await bench.promote()

    assert [job.raw for job in bench.take().jobs] == [b"older", b"newer", b"new"]


async def test_promoted_jobs_queue_behind_those_that_were_ready_before(bench: Workbench) -> None:
    (released,) = [bench.take_one(b"released")]
    jobs = await delayed(bench, b"delayed")
    await bench.moves.release([released])
    bench.make_due(*jobs)

    await bench.promote()

    assert [job.raw for job in bench.take().jobs] == [b"released", b"delayed"]


async def test_a_delayed_suspect_is_run_alone_when_its_moment_has_come(bench: Workbench) -> None:
    job = bench.take_one()
    bench.run("HSET", bench.record_key(job), "crashes", SUSPICIOUS_CRASHES)
    await bench.delay(job)
    bench.make_due(job)

    assert (await bench.promote()).count == 1

    assert (bench.suspects(), bench.again()) == ([job.ref], [])


async def test_a_job_just_below_suspicion_runs_with_the_others(bench: Workbench) -> None:
    job = bench.take_one()
    bench.run("HSET", bench.record_key(job), "crashes", SUSPICIOUS_CRASHES - 1)
    await bench.delay(job)
    bench.make_due(job)

    await bench.promote()

    assert bench.again() == [job.ref]


async def test_one_call_promotes_a_bounded_number(bench: Workbench) -> None:
    bench.run("LPUSH", bench.keys.queue, *range(UPKEEP_JOBS + 1))
    jobs = [job for _ in range(3) for job in bench.take(250).jobs]
    await bench.delay(*jobs)
    bench.make_due(*jobs)

    rounds = [await bench.promote(), await bench.promote()]

    assert [(promoted.count, promoted.next_due_ms) for promoted in rounds] == [(UPKEEP_JOBS, 0), (1, None)]


async def test_one_worker_of_the_fleet_is_enough(bench: Workbench) -> None:
    (job,) = await delayed(bench, b"a job")
    assert (await bench.promote(between_ms=60_000)).count == 0
    bench.make_due(job)
    before = bench.snapshot()

    # another worker, or the same one repeating itself, is told when to look again
    promoted = await bench.promote(between_ms=60_000)

    assert (promoted.count, promoted.next_due_ms) == (None, 0)

    assert bench.snapshot() == before


async def test_the_next_round_comes_when_its_time_has_come(bench: Workbench) -> None:
    jobs = await delayed(bench, b"a job")
    await bench.promote(between_ms=60_000)
    bench.make_due(*jobs)
    bench.run("HSET", bench.keys.maintenance, "promoted_at", bench.now_ms() - 60_000)

    assert (await bench.promote(between_ms=60_000)).count == 1


async def test_a_clock_that_went_back_does_not_stop_the_rounds(bench: Workbench) -> None:
    jobs = await delayed(bench, b"a job")
    bench.make_due(*jobs)
    bench.run("HSET", bench.keys.maintenance, "promoted_at", bench.now_ms() + 3_600_000)

    assert (await bench.promote(between_ms=1000)).count == 1


async def test_repeating_it_promotes_nothing_twice(bench: Workbench) -> None:
    jobs = await delayed(bench, b"a job")
    bench.make_due(*jobs)

    assert (await bench.promote()).count == 1
    assert (await bench.promote()).count == 0

    assert bench.again() == [jobs[0].ref]


@pytest.mark.parametrize("damage", ["deleted", "overwritten", "without its crashes", "with a word for its crashes"])
async def test_a_destroyed_record_does_not_stop_the_others(bench: Workbench, damage: str) -> None:
    jobs = await delayed(bench, b"1", b"2", b"3")
    bench.make_due(*jobs)
    record = bench.record_key(jobs[1])
    if damage == "without its crashes":
        bench.run("HDEL", record, "crashes")
    elif damage == "with a word for its crashes":
        bench.run("HSET", record, "crashes", "many")
    else:
        bench.run("DEL", record)
    if damage == "overwritten":
        bench.run("SET", record, "somebody's own")

    assert (await bench.promote()).count == 3

    expected = {b"1", b"3"} if damage in {"deleted", "overwritten"} else {b"1", b"2", b"3"}
    assert {job.raw for job in bench.take().jobs} == expected
    if damage == "overwritten":
        assert bench.run("GETDEL", record) == b"somebody's own"
