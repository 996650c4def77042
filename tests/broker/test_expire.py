"""expire: jobs that are ready again and have become too old are returned to be ended, whatever holds takes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.broker.test_suspects import make_suspects
from worker.broker import maintenance_moves
from worker.broker.move_limits import EXPIRE_JOBS, SUSPICIOUS_CRASHES
from worker.broker.records import CompleteAnswer, TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.records import Delivery


async def released(bench: Workbench, *messages: bytes) -> list[Delivery]:
    """Jobs that were released."""
    bench.push(*messages)
    jobs = bench.take(len(messages)).jobs
    await bench.moves.release(jobs)
    return jobs


async def test_with_nothing_too_old_nothing_is_returned_or_changed(bench: Workbench) -> None:
    await released(bench, b"again")
    await bench.retry(b"retry")
    before = bench.snapshot()

    assert await bench.expire() == []

    assert bench.snapshot() == before


async def test_too_old_jobs_of_all_kinds_are_in_the_callers_hands_and_can_be_ended(bench: Workbench) -> None:
    suspects = await make_suspects(bench, b"suspect 1", b"suspect 2")
    bench.run("SET", bench.keys.draining, "worker-2", "PX", 30_000)  # the others go on without them
    bench.push(b"again 1", b"again 2")
    again = bench.take(held=1).jobs
    retries = await bench.retry(b"retry 1", b"retry 2")
    await bench.moves.release(again)
    bench.make_too_old(again[0], retries[1], suspects[0])
    before, now = time.monotonic(), bench.now_ms()

    expired = await bench.expire()

    assert sorted(job.raw for job in expired) == [b"again 1", b"retry 2", b"suspect 1"]
    assert (bench.again(), bench.retries(), bench.suspects()) == ([again[1].ref], [retries[0].ref], [suspects[1].ref])
    assert sorted(bench.in_flight()) == sorted(job.ref for job in expired)
    for job in expired:
        assert bench.record(job)["lease_token"] == job.lease_token.encode()
        assert now <= (bench.lease_end(job) or 0) - bench.broker_options.lease_ms <= bench.now_ms()
        assert job.lease_until >= before + bench.broker_options.lease_ms / 1000
        assert not job.runs_alone
    assert [job.is_retry for job in sorted(expired, key=lambda job: job.raw)] == [False, True, False]
    assert set(await bench.moves.complete([bench.completion(job) for job in expired])) == {CompleteAnswer.PUBLISHED}


async def test_a_job_tells_all_that_is_known_of_it(bench: Workbench) -> None:
    job = bench.take_one(b"a message")
    job.attempts = 3
    await bench.delay(job, is_retry=True, progress=b"found out")
    bench.make_due(job)
    await bench.promote()
    bench.make_too_old(job)

    (expired,) = await bench.expire()

    assert (expired.ref, expired.raw, expired.size, expired.received_ms) == (
        job.ref,
        job.raw,
        job.size,
        job.received_ms,
    )
    assert (expired.attempts, expired.crashes, expired.is_retry, expired.progress) == (3, 0, True, b"found out")
    assert expired.lease_token != job.lease_token


@pytest.mark.parametrize("what", ["a pause", "the fleet's limit", "another worker's probe"])
async def test_what_holds_takes_back_holds_no_end_back(bench: Workbench, what: str) -> None:
    jobs = await bench.retry(b"retry")
    bench.make_too_old(*jobs)
    if what == "a pause":
        await bench.pause(30)
    elif what == "the fleet's limit":
        await bench.throttle(0.1)
        bench.run("SET", bench.keys.rate, (bench.now_ms() + 9_000) * 1000, "PX", 9_000)
    else:
        bench.run("HSET", bench.keys.limit, "probe_at", bench.now_ms() + 200)
    assert bench.take(is_probe=True).state in {TakeState.PAUSED, TakeState.LIMITED}

    assert [job.raw for job in await bench.expire()] == [b"retry"]


async def test_a_job_that_is_taken_is_not_returned_however_old_it_is(bench: Workbench) -> None:
    jobs = await bench.retry(b"retry")
    bench.make_too_old(*jobs)
    (taken,) = bench.take().jobs

    assert await bench.expire() == []

    assert await bench.moves.complete([bench.completion(taken)]) == [CompleteAnswer.PUBLISHED]


async def test_a_job_that_is_returned_is_not_taken_and_not_returned_again(bench: Workbench) -> None:
    jobs = await bench.retry(b"retry")
    bench.make_too_old(*jobs)

    (expired,) = await bench.expire()

    assert bench.take().jobs == []
    assert await bench.expire() == []
    assert bench.in_flight() == [expired.ref]


async def test_a_job_whose_finder_died_comes_back_and_is_returned_again(bench: Workbench) -> None:
    (job,) = await bench.retry(b"retry")
    bench.run("HSET", bench.record_key(job), "deadline", 1)
    bench.make_too_old(job)
    (expired,) = await bench.expire()

    await bench.crash(expired)

    (again,) = await bench.expire()
    assert (again.ref, again.crashes) == (job.ref, 1)
    assert again.lease_token != expired.lease_token


async def test_the_oldest_go_first_and_one_call_hands_out_a_bounded_number(bench: Workbench) -> None:
    jobs = await released(bench, *(b"%d" % number for number in range(EXPIRE_JOBS + 1)))
    for number, job in enumerate(reversed(jobs), start=1):
        bench.run("ZADD", bench.keys.deadlines, number, job.ref)

    rounds = [await bench.expire(), await bench.expire(), await bench.expire()]

    assert [len(expired) for expired in rounds] == [EXPIRE_JOBS, 1, 0]
    assert [job.ref for expired in rounds for job in expired] == [job.ref for job in reversed(jobs)]


async def test_one_call_hands_out_a_bounded_number_of_bytes(bench: Workbench) -> None:
    jobs = await bench.retry(*[bytes(600 * 1024)] * 3)
    bench.make_too_old(*jobs)

    rounds = [await bench.expire(), await bench.expire()]

    assert [len(expired) for expired in rounds] == [2, 1]


async def test_one_call_looks_through_long_lists_only_so_far(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a thousand old jobs behind a hundred thousand others do not hold the server up."""
    jobs = await released(bench, *(b"%d" % number for number in range(100)))
    bench.make_too_old(*jobs[90:95])
    monkeypatch.setattr(maintenance_moves, "EXPIRE_ENTRIES", 150)

    rounds = [await bench.expire(), await bench.expire(), await bench.expire(), await bench.expire()]

    assert [len(expired) for expired in rounds] == [2, 2, 1, 0]


async def test_jobs_in_flight_are_not_looked_for_in_the_lists(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.push(b"held 1", b"held 2", b"held 3")
    held = bench.take(3).jobs
    jobs = await released(bench, *(b"%d" % number for number in range(20)))
    for job in held:  # as a worker of the version before leaves them
        bench.run("ZADD", bench.keys.deadlines, 1, job.ref)
    bench.make_too_old(jobs[0])
    monkeypatch.setattr(maintenance_moves, "EXPIRE_ENTRIES", 15)

    assert [job.ref for job in await bench.expire()] == [jobs[0].ref]


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
async def test_a_destroyed_record_does_not_stop_the_others(bench: Workbench, damage: str) -> None:
    jobs = await released(bench, b"1", b"2", b"3")
    bench.make_too_old(*jobs)
    bench.run("DEL", bench.record_key(jobs[1]))
    if damage == "overwritten":
        bench.run("SET", bench.record_key(jobs[1]), "somebody's own")

    assert [job.raw for job in await bench.expire()] == [b"1", b"3"]

    # what is left of it a take finds, and counts
    assert bench.take().jobs == []
    assert bench.counters()["vanished"] == 1
    if damage == "overwritten":
        assert bench.run("GETDEL", bench.record_key(jobs[1])) == b"somebody's own"


# Beside a worker of the version before, which knows neither deadlines nor retries


@pytest.mark.parametrize("where", ["in flight", "delayed", "ended"])
async def test_a_deadline_that_a_take_of_the_version_before_left_behind_is_cleared_and_harms_nobody(
    bench: Workbench, where: str
) -> None:
    """That take moves a ref from ``again`` into flight as ours does, but leaves it in ``deadlines``.

    Its other moves touch neither ``deadlines`` nor ``retries``, and they keep the fields of a record that they do not
    know. So what it leaves behind is just this, wherever its job goes from there.
    """
    job = bench.take_one()
    if where == "delayed":
        await bench.delay(job)
    elif where == "ended":
        await bench.moves.complete([bench.completion(job)])
    bench.run("ZADD", bench.keys.deadlines, 1, job.ref)
    before = bench.snapshot()

    assert await bench.expire() == []

    assert bench.deadlines() == {}
    assert {key: value for key, value in before.items() if key != bench.keys.deadlines.encode()} == bench.snapshot()


async def test_a_retry_that_the_version_before_put_among_the_others_is_found_there(bench: Workbench) -> None:
    """Its promote, release and recover put every job that is no suspect on ``again``."""
    (job,) = await bench.retry(b"retry")
    bench.run("LMOVE", bench.keys.retries, bench.keys.requeued, "LEFT", "RIGHT")
    bench.make_too_old(job)

    assert [expired.ref for expired in await bench.expire()] == [job.ref]

    assert (bench.again(), bench.retries()) == ([], [])


async def test_a_job_that_stands_in_another_list_than_its_record_says_is_found_all_the_same(bench: Workbench) -> None:
    jobs = await bench.retry(b"1", b"2")
    for job in jobs:
        bench.run("HDEL", bench.record_key(job), "retry")
    bench.run("HSET", bench.record_key(jobs[1]), "crashes", SUSPICIOUS_CRASHES)
    bench.make_too_old(*jobs)

    assert {job.ref for job in await bench.expire()} == {job.ref for job in jobs}

    assert bench.retries() == []


async def test_a_job_that_the_version_before_made_ready_has_no_deadline_and_is_taken(bench: Workbench) -> None:
    (job,) = await released(bench, b"a job")
    bench.run("DEL", bench.keys.deadlines)

    assert await bench.expire() == []

    assert [taken.ref for taken in bench.take().jobs] == [job.ref]
