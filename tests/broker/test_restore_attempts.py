"""restore_attempts: attempts that an outage cost jobs which wait now are taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.records import Delivery


def calls(bench: Workbench, job: Delivery) -> int:
    """Of its record."""
    return int(bench.record(job).get("attempts", 0))


@pytest.mark.parametrize("where", ["delayed", "retries", "again"])
async def test_a_job_that_waits_gets_attempts_back_wherever_it_waits(bench: Workbench, where: str) -> None:
    job = bench.take_one()
    job.attempts = 3
    if where == "again":
        await bench.moves.release([job])
    else:
        await bench.delay(job, is_retry=True)
    if where == "retries":
        bench.make_due(job)
        await bench.promote()

    await bench.moves.restore_attempts([(job.ref, 2)])

    assert calls(bench, job) == 1


async def test_a_job_in_somebodys_hands_keeps_its_count(bench: Workbench) -> None:
    """Whoever holds it writes a count of its own when it lets go."""
    job = bench.take_one()
    job.attempts = 3
    await bench.moves.release([job])
    bench.take()
    before = bench.snapshot()

    await bench.moves.restore_attempts([(job.ref, 2)])

    assert bench.snapshot() == before


async def test_no_job_has_fewer_attempts_than_none(bench: Workbench) -> None:
    job = bench.take_one()
    job.attempts = 1
    await bench.delay(job)

    await bench.moves.restore_attempts([(job.ref, 5)])

    assert calls(bench, job) == 0


async def test_each_job_of_a_call_gets_its_own_back_and_those_that_are_gone_get_none(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3")
    jobs = bench.take().jobs
    for job in jobs:
        job.attempts = 5
    await bench.delay(*jobs[:2])
    await bench.moves.complete([bench.completion(jobs[2])])

    await bench.moves.restore_attempts([(jobs[0].ref, 1), (jobs[2].ref, 1), (jobs[1].ref, 3), ("nobody's", 1)])

    assert [calls(bench, job) for job in jobs[:2]] == [4, 2]
    assert bench.run("EXISTS", bench.record_key(jobs[2]), bench.keys.record_prefix + "nobody's") == 0


@pytest.mark.parametrize("value", ["a word", "nan", "inf", "-3", "9" * 400])
async def test_a_count_that_makes_no_sense_is_left_alone(bench: Workbench, value: str) -> None:
    job = bench.take_one()
    await bench.delay(job)
    bench.run("HSET", bench.record_key(job), "attempts", value)
    before = bench.snapshot()

    await bench.moves.restore_attempts([(job.ref, 1)])

    assert bench.snapshot() == before


async def test_an_overwritten_record_does_not_stop_the_others(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    jobs = bench.take().jobs
    for job in jobs:
        job.attempts = 2
    await bench.delay(*jobs)
    bench.run("SET", bench.record_key(jobs[0]), "somebody's own")

    await bench.moves.restore_attempts([(job.ref, 1) for job in jobs])

    assert calls(bench, jobs[1]) == 1
    assert bench.run("GET", bench.record_key(jobs[0])) == b"somebody's own"
    bench.run("FLUSHALL")


async def test_a_call_with_no_jobs_changes_nothing(bench: Workbench) -> None:
    await bench.moves.restore_attempts([])

    assert bench.snapshot() == {}
