"""hold and release_held: jobs are set aside, cost nothing, and go on where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.broker.keys import digest
from worker.broker.move_limits import RELEASE_HELD_JOBS, SUSPICIOUS_CRASHES
from worker.broker.records import Claim, ClaimAnswer
from worker.message.controls import Control, Note
from worker.message.selector import Selector

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

HOLD = Control("hold", Selector(rule="r-1"), Note("an operator", "a reason"))
MARK = HOLD.selector.digest


async def test_a_job_that_is_held_is_no_workers_until_its_hold_is_released(bench: Workbench) -> None:
    await bench.control("set", HOLD)
    job = bench.take_one()
    job.attempts, job.progress = 2, b'{"known": 1}'

    assert await bench.moves.hold([(job, MARK)]) == [True]
    assert await bench.maintenance.release_held() == 0
    assert (bench.held(), bench.in_flight(), bench.take().jobs) == ([job.ref], [], [])

    await bench.control("remove", HOLD)
    assert await bench.maintenance.release_held() == 1

    (again,) = bench.take().jobs
    assert (again.ref, again.attempts, again.progress, again.raw) == (job.ref, 2, b'{"known": 1}', job.raw)
    assert bench.held() == []


async def test_a_job_that_another_worker_has_by_now_is_not_held(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)
    bench.fleet_was_awake()
    await bench.recover()

    assert await bench.moves.hold([(job, MARK)]) == [False]
    assert bench.held() == []


async def test_a_held_job_that_was_a_retry_or_a_suspect_comes_back_as_one(bench: Workbench) -> None:
    retry, suspect = bench.take_one(), bench.take_one()
    bench.run("HSET", bench.record_key(retry), "retry", 1)
    bench.run("HSET", bench.record_key(suspect), "crashes", SUSPICIOUS_CRASHES)
    await bench.moves.hold([(retry, MARK), (suspect, MARK)])

    assert await bench.maintenance.release_held() == 2

    assert (bench.retries(), bench.suspects(), bench.again()) == ([retry.ref], [suspect.ref], [])


async def test_a_hold_whose_time_is_over_lets_its_jobs_go_on_by_itself(bench: Workbench) -> None:
    until_ms = bench.now_ms() + 60_000
    timed = Control("hold", Selector(rule="r-1"), Note("an operator", "a reason", until_ms=until_ms))
    await bench.control("set", timed)
    job = bench.take_one()
    await bench.moves.hold([(job, MARK)])
    assert await bench.maintenance.release_held() == 0

    over = Control("hold", Selector(rule="r-1"), Note("an operator", "a reason", until_ms=bench.now_ms() - 1))
    bench.run("HSET", bench.keys.controls, over.field, over.to_json())

    assert await bench.maintenance.release_held() == 1


async def test_the_release_of_one_hold_leaves_the_jobs_of_others(bench: Workbench) -> None:
    other = Control("hold", Selector(rule="r-2"), Note("an operator", "a reason"))
    await bench.control("set", other)
    jobs = [bench.take_one() for _ in range(6)]
    for number, job in enumerate(jobs):
        await bench.moves.hold([(job, (MARK, other.selector.digest)[number % 2])])

    assert await bench.maintenance.release_held() == 3

    assert sorted(bench.held()) == sorted(job.ref for job in jobs[1::2])
    assert set(bench.again()) == {job.ref for job in jobs[::2]}


async def test_a_call_releases_a_bounded_number_and_those_behind_come_next(bench: Workbench) -> None:
    count = RELEASE_HELD_JOBS + 20
    bench.push(*(b"job %d" % number for number in range(count)))
    while jobs := bench.take(250).jobs:
        await bench.moves.hold([(job, MARK) for job in jobs])

    assert await bench.maintenance.release_held() == RELEASE_HELD_JOBS
    assert await bench.maintenance.release_held() == 20
    assert await bench.maintenance.release_held() == 0


async def test_time_on_hold_does_not_count_for_the_age(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.moves.hold([(job, MARK)])
    held_at = int(bench.record(job)["held_at"])
    bench.run("HSET", bench.record_key(job), "held_at", held_at - 7_200_000)

    await bench.maintenance.release_held()

    (deadline,) = bench.client.zrange(bench.keys.deadlines, 0, -1, withscores=True)
    expected = job.received_ms + 7_200_000 + bench.broker_options.max_age_ms
    assert abs(deadline[1] - expected) < 60_000
    (again,) = bench.take().jobs
    assert 7_200_000 <= again.age_offset_ms < 7_260_000


async def test_a_deadline_that_was_noted_moves_with_the_time_on_hold(bench: Workbench) -> None:
    job = bench.take_one()
    bench.run("HSET", bench.record_key(job), "deadline", 5_000_000_000_000)
    await bench.moves.hold([(job, MARK)])
    bench.run("HSET", bench.record_key(job), "held_at", int(bench.record(job)["held_at"]) - 1_000_000)

    await bench.maintenance.release_held()

    assert 1_000_000 <= int(bench.record(job)["deadline"]) - 5_000_000_000_000 < 1_060_000


@pytest.mark.parametrize("deadline", [0, 5_000_000_000_000])
async def test_a_job_that_is_woken_gets_no_older_by_its_time_on_hold_either(bench: Workbench, deadline: int) -> None:
    job = bench.take_one()
    if deadline:
        bench.run("HSET", bench.record_key(job), "deadline", deadline)
    await bench.moves.hold([(job, MARK)])
    bench.run("HINCRBY", bench.record_key(job), "held_at", -7_200_000)

    await bench.wake(("held", f"{MARK}:{job.ref}", job.ref))

    expected = (deadline or job.received_ms + bench.broker_options.max_age_ms) + 7_200_000
    assert 0 <= bench.deadlines()[job.ref] - expected < 60_000
    (again,) = bench.take().jobs
    assert 7_200_000 <= again.age_offset_ms < 7_260_000


@pytest.mark.usefixtures("overwritten")
async def test_what_others_wrote_among_the_held_jobs_stops_nobody(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.moves.hold([(job, MARK)])
    bench.run("ZADD", bench.keys.held, 0, "no colon", 0, ":", 0, "a:b:c", 0, b"\xff\xfe:x")
    bench.run("HSET", bench.keys.controls, f"hold {MARK}", "[1]", "hold a", "{", "version", "a word")

    assert await bench.maintenance.release_held() == 5
    assert bench.client.zcard(bench.keys.held) == 0


async def test_a_job_on_hold_is_woken_to_be_ended(bench: Workbench) -> None:
    await bench.control("set", HOLD)
    held, delayed = bench.take_one(), bench.take_one()
    await bench.moves.hold([(held, MARK)])
    await bench.delay(delayed)

    woken = await bench.wake(
        ("held", f"{MARK}:{held.ref}", held.ref), ("delayed", delayed.ref, delayed.ref), ("held", "gone:x", "x")
    )

    assert woken == 2
    assert bench.again() == [held.ref, delayed.ref]


async def test_a_cancelled_id_is_told_at_the_claim_and_no_other_is(bench: Workbench) -> None:
    what = digest("a conversation")
    version = await bench.cancel(digest("cancelled"))

    answers = await bench.moves.claim([Claim(digest("cancelled"), what), Claim(digest("another"), what)])

    assert answers == [ClaimAnswer.CANCELLED, ClaimAnswer.GO]
    assert (await bench.promote()).fleet.controls == version
    assert 0 < bench.run("PTTL", bench.keys.cancelled) <= 60_000
