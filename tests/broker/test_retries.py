"""Jobs whose call failed stand on a list of their own, so that the worker decides how many go before new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.workbench import LONG_AGO_MS
from worker.broker.move_limits import PASSED_JOBS, SUSPICIOUS_CRASHES
from worker.broker.records import TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


def raws(bench: Workbench, wanted: int = 10, **wishes: Any) -> list[bytes]:
    """What a take brings."""
    return [job.raw for job in bench.take(wanted, **wishes).jobs]


async def test_a_job_whose_call_failed_comes_back_as_a_retry_and_tells_so(bench: Workbench) -> None:
    job = bench.take_one(b"a message")
    job.attempts = 1
    await bench.delay(job, is_retry=True, progress=b'{"what":"was found out"}')
    bench.make_due(job)

    await bench.promote()

    assert (bench.retries(), bench.again()) == ([job.ref], [])
    (again,) = bench.take().jobs
    assert (again.ref, again.is_retry, again.attempts) == (job.ref, True, 1)
    assert again.progress == b'{"what":"was found out"}'


async def test_a_job_that_waited_for_something_else_is_no_retry(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.delay(job)
    bench.make_due(job)

    await bench.promote()

    assert (bench.retries(), bench.again()) == ([], [job.ref])
    (again,) = bench.take().jobs
    assert (again.is_retry, again.progress) == (False, b"")


@pytest.mark.parametrize("move", ["delay", "release", "recover"])
async def test_a_retry_stays_one_and_keeps_what_was_found_out(bench: Workbench, move: str) -> None:
    job = bench.take_one()
    await bench.delay(job, is_retry=True, progress=b"found out")
    bench.make_due(job)
    await bench.promote()
    (job,) = bench.take().jobs

    match move:
        case "delay":
            await bench.delay(job)
            bench.make_due(job)
            await bench.promote()
        case "release":
            await bench.moves.release([job])
        case "recover":
            await bench.crash(job)

    assert (bench.retries(), bench.again()) == ([job.ref], [])
    (job,) = bench.take().jobs
    assert (job.is_retry, job.progress) == (True, b"found out")


async def test_the_progress_of_a_later_delivery_takes_the_place_of_an_earlier_one(bench: Workbench) -> None:
    job = bench.take_one()
    for progress in (b"1", b"", b"2 \x00\xff"):
        await bench.delay(job, is_retry=True, progress=progress)
        bench.make_due(job)
        await bench.promote()
        (job,) = bench.take().jobs

    assert job.progress == b"2 \x00\xff"


@pytest.mark.parametrize("move", ["promote", "release", "recover"])
async def test_a_retry_that_workers_died_on_is_a_suspect_all_the_same(bench: Workbench, move: str) -> None:
    job = bench.take_one()
    bench.run("HSET", bench.record_key(job), "retry", 1, "crashes", SUSPICIOUS_CRASHES)

    match move:
        case "promote":
            await bench.delay(job, is_retry=True)
            bench.make_due(job)
            await bench.promote()
        case "release":
            await bench.moves.release([job])
        case "recover":
            await bench.crash(job)

    assert (bench.suspects(), bench.retries(), bench.again()) == ([job.ref], [], [])
    assert bench.take(held=0).jobs[0].is_retry


async def test_retries_come_in_the_order_in_which_they_were_due(bench: Workbench) -> None:
    first, second = bench.take_one(b"first"), bench.take_one(b"second")
    await bench.delay(first, second, is_retry=True)
    bench.make_due(second)
    bench.run("ZADD", bench.keys.delayed, 1, first.ref)

    await bench.promote()

    assert raws(bench) == [b"first", b"second"]


async def test_jobs_released_together_keep_their_order_on_each_list(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3", b"4", b"5", b"6")
    jobs = bench.take().jobs
    for job in jobs[::2]:
        bench.run("HSET", bench.record_key(job), "retry", 1)
    for job in jobs[4:]:
        bench.run("HSET", bench.record_key(job), "crashes", SUSPICIOUS_CRASHES)

    assert await bench.moves.release(jobs) == [True] * 6

    assert bench.again() == [jobs[1].ref, jobs[3].ref]
    assert bench.retries() == [jobs[0].ref, jobs[2].ref]
    assert bench.suspects() == [jobs[4].ref, jobs[5].ref]


async def test_what_was_released_goes_first_then_some_retries_then_new_jobs_then_more_retries(
    bench: Workbench,
) -> None:
    again = bench.take_one(b"again")
    await bench.retry(b"retry 1", b"retry 2", b"retry 3", b"retry 4")
    await bench.moves.release([again])
    bench.push(b"new 1", b"new 2")

    assert raws(bench, retries_first=1, max_retries=3) == [
        b"again", b"retry 1", b"new 1", b"new 2", b"retry 2", b"retry 3",
    ]  # fmt: skip
    assert len(bench.retries()) == 1


async def test_with_new_jobs_enough_no_more_retries_come_than_may_go_first(bench: Workbench) -> None:
    await bench.retry(b"retry 1", b"retry 2")
    bench.push(b"new 1", b"new 2", b"new 3")

    takes = [raws(bench, 2, retries_first=first, max_retries=2) for first in (1, 0, 2)]

    assert takes == [[b"retry 1", b"new 1"], [b"new 2", b"new 3"], [b"retry 2"]]


async def test_a_worker_that_wants_no_retry_gets_none_and_there_is_nothing_else(bench: Workbench) -> None:
    await bench.retry(b"retry")

    taken = bench.take(retries_first=0, max_retries=0)

    assert (taken.state, taken.jobs) == (TakeState.EMPTY, [])
    assert len(bench.retries()) == 1


async def test_a_probe_takes_what_is_new_then_what_was_released_and_a_retry_last(bench: Workbench) -> None:
    again = bench.take_one(b"again")
    await bench.retry(b"retry")
    await bench.moves.release([again])
    bench.push(b"new")

    takes = [raws(bench, 1, is_probe=True, unused=1, retries_first=1, max_retries=1) for _ in range(4)]

    assert takes == [[b"new"], [b"again"], [b"retry"], []]


async def test_a_probe_may_be_a_retry_where_there_is_nothing_else_whatever_the_share(bench: Workbench) -> None:
    await bench.retry(b"retry")

    assert raws(bench, 1, is_probe=True, retries_first=0, max_retries=0) == [b"retry"]


async def test_retries_fill_a_take_up_by_their_bytes(bench: Workbench) -> None:
    big = bytes(600 * 1024)
    await bench.retry(big, big, big)
    bench.push(b"new")

    assert raws(bench) == [big, big]
    assert raws(bench) == [big, b"new"]


# Which new jobs


async def test_the_newest_may_be_asked_for_first_of_what_woke_a_worker_and_then_by_priority(bench: Workbench) -> None:
    bench.arrive(b"arrived 1", b"arrived 2")
    bench.push(b"1", b"2", priority=0)
    bench.push(b"3", b"4", priority=9)

    assert raws(bench, which_new="newest") == [b"arrived 2", b"arrived 1", b"2", b"1", b"4", b"3"]


async def test_the_newest_are_asked_for_only_where_there_is_room_beside_what_comes_back(bench: Workbench) -> None:
    again = bench.take_one(b"again")
    await bench.retry(b"retry")
    await bench.moves.release([again])
    bench.push(b"1", b"2", b"3")

    assert raws(bench, 4, which_new="newest") == [b"again", b"retry", b"3", b"2"]


async def test_a_probe_may_ask_for_the_newest(bench: Workbench) -> None:
    bench.push(b"1", b"2")

    assert raws(bench, 1, which_new="newest", is_probe=True) == [b"2"]


# Records that somebody destroyed


async def test_thousands_of_jobs_whose_records_vanished_hold_no_take_up_for_long(bench: Workbench) -> None:
    """As after a person has deleted all records with a pattern."""
    gone = [f"gone.{number}" for number in range(9 * PASSED_JOBS)]
    bench.run("RPUSH", bench.keys.requeued, *gone)
    bench.run("ZADD", bench.keys.deadlines, *[part for ref in gone for part in (1, ref)])
    bench.run("HSET", bench.keys.counters, "taken", len(gone))
    bench.push(b"new")

    takes = [bench.take() for _ in range(10)]

    assert [take.state for take in takes] == [TakeState.MORE] * 9 + [TakeState.JOBS]
    assert not any(take.emptied_queue for take in takes[:9])  # so that the worker asks again at once
    assert [job.raw for job in takes[-1].jobs] == [b"new"]
    assert bench.counters()["vanished"] == len(gone)
    assert bench.deadlines() == {}


@pytest.mark.parametrize("number", ["nan", "-nan", "inf", "1e300", "0x10", "-5", "a word", "", "9" * 400, "9" * 5000])
@pytest.mark.parametrize("field", ["first", "deadline", "crashes", "retry", "attempts", "size"])
async def test_a_number_that_makes_no_sense_neither_stops_a_move_nor_half_makes_one(
    bench: Workbench, field: str, number: str
) -> None:
    for move in ("release", "recover", "promote"):
        job = bench.take_one(b"a message")
        bench.run("HSET", bench.record_key(job), field, number)
        match move:
            case "release":
                assert await bench.moves.release([job]) == [True]
            case "recover":
                assert (await bench.crash(job)).count == 1
            case "promote":
                await bench.delay(job)
                bench.make_due(job)
                assert (await bench.promote()).count == 1
        assert bench.deadlines().keys() == {job.ref}

        await bench.expire()  # it may be too old, by a deadline that makes no sense
        (again,) = bench.take(held=0).jobs or bench.take(held=0).jobs or [job]
        assert bench.record(again)["raw"] == b"a message"
        await bench.moves.complete([bench.completion(again)])
        bench.run("FLUSHALL")


# When a job that is ready again is too old


async def test_a_ready_job_is_too_old_when_its_record_says_so(bench: Workbench) -> None:
    deadline = bench.now_ms() + 5_000_000
    (job,) = await bench.retry(b"a message", deadline_ms=deadline)
    assert bench.deadlines() == {job.ref: deadline}

    for move in ("release", "recover"):
        (job,) = bench.take().jobs
        assert bench.deadlines() == {}
        await (bench.moves.release([job]) if move == "release" else bench.crash(job))
        assert bench.deadlines() == {job.ref: deadline}


@pytest.mark.parametrize("move", ["release", "recover"])
async def test_without_a_deadline_in_its_record_a_jobs_age_is_counted_from_its_first_take(
    bench: Workbench, move: str
) -> None:
    job = bench.take_one()
    first = bench.now_ms() - LONG_AGO_MS
    bench.run("HSET", bench.record_key(job), "first", first)

    await (bench.moves.release([job]) if move == "release" else bench.crash(job))

    assert bench.deadlines() == {job.ref: first + bench.broker_options.max_age_ms}


async def test_without_a_deadline_in_its_record_a_job_that_waited_is_new_from_then_on(bench: Workbench) -> None:
    """What a worker of the version before put aside waits for the moment that its producer named."""
    job = bench.take_one()
    bench.run("HSET", bench.record_key(job), "first", 1)
    await bench.delay(job)
    bench.make_due(job)
    before = bench.now_ms()

    await bench.promote()

    assert before <= bench.deadlines()[job.ref] - bench.broker_options.max_age_ms <= bench.now_ms()


async def test_where_jobs_may_live_for_ever_no_deadline_is_noted(bench: Workbench) -> None:
    for_ever = bench.under(max_age_ms=0)
    bench.push(b"1", b"2", b"3")
    released, lost, delayed = for_ever.take().jobs

    await for_ever.moves.release([released])
    await for_ever.crash(lost)
    await for_ever.delay(delayed, is_retry=True)
    bench.make_due(delayed)
    promoted = await for_ever.promote()

    assert (bench.deadlines(), promoted.next_deadline_ms) == ({}, None)
    assert len(for_ever.take().jobs) == 3


async def test_a_job_sleeps_no_longer_than_until_it_is_too_old(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3")
    long, short, late = bench.take().jobs
    now = bench.now_ms()

    await bench.delay(long, seconds=60, deadline_ms=now + 20_000)
    await bench.delay(short, seconds=10, deadline_ms=now + 20_000)
    await bench.delay(late, seconds=60, deadline_ms=now - 20_000)

    due = {job.raw: float(bench.run("ZSCORE", bench.keys.delayed, job.ref)) - now for job in (long, short, late)}
    assert due[b"1"] == 20_000
    assert 10_000 <= due[b"2"] < 15_000
    assert 0 <= due[b"3"] < 5_000


async def test_promote_tells_when_the_next_ready_job_is_too_old(bench: Workbench) -> None:
    assert (await bench.promote()).next_deadline_ms is None

    near, far = await bench.retry(b"near", b"far")
    bench.run("ZADD", bench.keys.deadlines, bench.now_ms() + 20_000, near.ref)
    next_deadline_ms = (await bench.promote()).next_deadline_ms
    assert next_deadline_ms is not None
    assert 10_000 < next_deadline_ms <= 20_000

    bench.make_too_old(far)
    assert (await bench.promote()).next_deadline_ms == 0
    assert (await bench.promote(between_ms=60_000)).next_deadline_ms == 0
