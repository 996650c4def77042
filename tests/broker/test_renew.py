"""renew: a living worker keeps what it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.records import Delivery


def is_fresh(bench: Workbench, job: Delivery) -> bool:
    """Whether the lease was set just now."""
    end = bench.lease_end(job)
    return (
        end is not None
        and bench.broker_options.lease_ms - 10_000 < end - bench.now_ms() <= bench.broker_options.lease_ms
    )


async def test_a_renewed_lease_counts_from_now(bench: Workbench) -> None:
    job = bench.take_one()
    bench.run("ZADD", bench.keys.leases, bench.now_ms() + 100, job.ref)

    assert await bench.maintenance.renew([job]) == [True]

    assert is_fresh(bench, job)


async def test_nothing_but_the_lease_changes(bench: Workbench) -> None:
    job = bench.take_one()
    job.attempts = 3
    before = bench.snapshot()

    await bench.maintenance.renew([job])

    after = bench.snapshot()
    assert {key for key in before | after if before.get(key) != after.get(key)} <= {bench.keys.leases.encode()}


async def test_a_lease_that_is_over_but_not_yet_recovered_lives_again(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)

    assert await bench.maintenance.renew([job]) == [True]

    assert is_fresh(bench, job)
    bench.fleet_was_awake()
    assert (await bench.recover()).count == 0


@pytest.mark.parametrize("state", ["completed", "delayed", "released", "recovered", "taken by another worker"])
async def test_a_lease_that_was_lost_stays_lost(bench: Workbench, state: str) -> None:
    job = bench.take_one()
    if state == "completed":
        await bench.moves.complete([bench.completion(job)])
    elif state == "delayed":
        await bench.delay(job)
    elif state == "released":
        await bench.moves.release([job])
    else:
        await bench.crash(job)
    if state == "taken by another worker":
        bench.take()
    before = bench.snapshot()

    assert await bench.maintenance.renew([job]) == [False]

    assert bench.snapshot() == before


async def test_each_job_of_a_call_gets_its_own_answer(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3")
    jobs = bench.take().jobs
    bench.lapse(*jobs)

    answers = await bench.maintenance.renew([jobs[0], replace(jobs[1], lease_token="not this one"), jobs[2]])

    assert answers == [True, False, True]
    assert [is_fresh(bench, job) for job in jobs] == [True, False, True]


async def test_a_repeated_call_only_sets_the_lease_again(bench: Workbench) -> None:
    job = bench.take_one()

    assert [await bench.maintenance.renew([job]), await bench.maintenance.renew([job])] == [[True], [True]]

    assert bench.in_flight() == [job.ref]


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
async def test_a_destroyed_record_does_not_stop_the_others(bench: Workbench, damage: str) -> None:
    bench.push(b"1", b"2")
    jobs = bench.take().jobs
    bench.lapse(*jobs)
    bench.run("DEL", bench.record_key(jobs[0]))
    if damage == "overwritten":
        bench.run("SET", bench.record_key(jobs[0]), "somebody's own")

    assert await bench.maintenance.renew(jobs) == [False, True]

    if damage == "overwritten":
        assert bench.run("GETDEL", bench.record_key(jobs[0])) == b"somebody's own"


async def test_a_call_with_no_jobs_changes_nothing(bench: Workbench) -> None:
    assert await bench.maintenance.renew([]) == []
    assert bench.snapshot() == {}
