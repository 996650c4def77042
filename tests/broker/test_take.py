"""take: from the ready lists into flight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from worker.broker.move_limits import KEPT_BYTES, MAX_MESSAGE_BYTES
from worker.broker.records import TAKE_JOBS, TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.records import Taken


def raws(taken: Taken) -> list[bytes]:
    return [job.raw for job in taken.jobs]


async def test_an_empty_queue_answers_empty_and_remembers_when(bench: Workbench) -> None:
    before = bench.now_ms()

    taken = bench.take()

    assert taken.state is TakeState.EMPTY
    assert taken.jobs == []
    assert before <= taken.server_ms <= bench.now_ms()
    assert int(bench.run("HGET", bench.keys.maintenance, "empty_at")) == taken.server_ms
    assert bench.counters() == {}


async def test_the_oldest_message_of_a_list_comes_first(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3")

    taken = bench.take()

    assert taken.state is TakeState.JOBS
    assert raws(taken) == [b"1", b"2", b"3"]


async def test_what_comes_back_goes_before_what_woke_us_and_that_before_the_stock_lists_by_priority(
    bench: Workbench,
) -> None:
    await bench.moves.release([bench.take_one(b"again")])
    for priority in (9, 3, 0, 6):
        bench.push(f"priority {priority}, older".encode(), f"priority {priority}, newer".encode(), priority=priority)
    bench.arrive(b"arrived, older", b"arrived, newer")

    assert raws(bench.take(100)) == [
        b"again",
        b"arrived, older", b"arrived, newer",
        b"priority 0, older", b"priority 0, newer",
        b"priority 3, older", b"priority 3, newer",
        b"priority 6, older", b"priority 6, newer",
        b"priority 9, older", b"priority 9, newer",
    ]  # fmt: skip


async def test_a_probe_takes_a_new_job_before_those_that_failed_before(bench: Workbench) -> None:
    await bench.moves.release([bench.take_one(b"again")])
    bench.push(b"new", priority=9)

    takes = [raws(bench.take(1, is_probe=True, unused=1)) for _ in range(3)]

    assert takes == [[b"new"], [b"again"], []]


async def test_a_probe_that_wants_more_takes_what_is_new_and_then_what_comes_back(bench: Workbench) -> None:
    await bench.moves.release([bench.take_one(b"again")])
    bench.push(b"new 1", b"new 2")

    assert raws(bench.take(10, is_probe=True)) == [b"new 1", b"new 2", b"again"]


async def test_no_more_jobs_than_wanted_are_taken(bench: Workbench) -> None:
    bench.push(b"again 1", b"again 2", b"1", b"2", b"3")
    await bench.moves.release(bench.take(2).jobs)

    takes = [raws(bench.take(wanted)) for wanted in (1, 2, 1, 2)]

    assert takes == [[b"again 1"], [b"again 2", b"1"], [b"2"], [b"3"]]
    assert len(bench.in_flight()) == 5


async def test_a_take_that_wants_nothing_takes_nothing(bench: Workbench) -> None:
    bench.push(b"1")
    before = bench.snapshot()

    assert bench.take(0).jobs == []

    assert bench.snapshot() == before


async def test_one_take_is_bounded_whatever_is_wanted(bench: Workbench) -> None:
    bench.run("LPUSH", bench.keys.queue, *range(TAKE_JOBS + 1))

    assert len(bench.take(10_000).jobs) == TAKE_JOBS
    assert len(bench.take(10_000).jobs) == 1


async def test_a_take_ends_with_the_message_that_fills_it_up(bench: Workbench) -> None:
    big = bytes(600 * 1024)
    bench.push(big, big, b"small")

    assert raws(bench.take()) == [big, big]
    assert raws(bench.take()) == [b"small"]


async def test_jobs_that_come_back_fill_a_take_up_too(bench: Workbench) -> None:
    big = bytes(600 * 1024)
    bench.push(big, big, big)
    jobs = [job for _ in range(3) for job in bench.take(1).jobs]
    await bench.moves.release(jobs)

    assert len(bench.take().jobs) == 2
    assert len(bench.take().jobs) == 1


async def test_of_an_oversize_message_the_beginning_is_kept_and_the_true_size_reported(bench: Workbench) -> None:
    message = bytes(range(256)) * (5 * 1024 * 4)
    bench.push(message)

    (job,) = bench.take().jobs

    assert len(message) == 5 * 1024 * 1024
    assert job.size == len(message)
    assert job.raw == message[:KEPT_BYTES]
    assert bench.record(job)["raw"] == message[:KEPT_BYTES]
    assert bench.record(job)["size"] == b"%d" % len(message)


@pytest.mark.parametrize(
    ("size", "kept"), [(MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES), (MAX_MESSAGE_BYTES + 1, KEPT_BYTES)]
)
async def test_a_message_of_exactly_the_limit_is_kept_whole(bench: Workbench, size: int, kept: int) -> None:
    bench.push(bytes(size))

    (job,) = bench.take().jobs

    assert (job.size, len(job.raw)) == (size, kept)


async def test_an_oversize_message_fills_a_take_only_by_what_is_kept(bench: Workbench) -> None:
    bench.push(bytes(2 * MAX_MESSAGE_BYTES), b"next")

    assert len(bench.take().jobs) == 2


async def test_a_new_job_gets_a_record_a_lease_and_a_name(bench: Workbench) -> None:
    message = b"\x00\xff\r\n any bytes \x80"
    bench.push(message)

    taken = bench.take(token="the-token")

    (job,) = taken.jobs
    assert (job.lease_token, job.raw, job.size, job.received_ms, job.attempts, job.crashes) == (
        "the-token", message, len(message), taken.server_ms, 0, 0,
    )  # fmt: skip
    assert (job.queue, job.runs_alone) == ("moderation.lock", False)
    assert bench.record(job) == {
        "raw": message,
        "first": b"%d" % taken.server_ms,
        "lease_token": b"the-token",
    }
    assert bench.in_flight() == [job.ref]
    assert bench.lease_end(job) == taken.server_ms + bench.broker_options.lease_ms


async def test_an_empty_message_is_a_job_too(bench: Workbench) -> None:
    bench.push(b"")

    assert raws(bench.take()) == [b""]


async def test_the_lease_is_counted_from_before_the_take_was_sent(bench: Workbench) -> None:
    bench.push(b"1")
    before = time.monotonic()

    (job,) = bench.take().jobs

    lease_seconds = bench.broker_options.lease_ms / 1000
    assert before + lease_seconds <= job.lease_until <= time.monotonic() + lease_seconds


async def test_a_job_that_comes_back_keeps_its_record_and_gets_a_fresh_token(bench: Workbench) -> None:
    # given a job that was called three times, then lost its worker
    first = bench.take_one(b"a message")
    first.attempts = 3
    await bench.delay(first, seconds=0)
    bench.make_due(first)
    await bench.promote()
    (second,) = bench.take().jobs
    await bench.crash(second)

    # when it is taken again
    taken = bench.take()

    # then all that is known of it comes along
    (third,) = taken.jobs
    assert third.ref == first.ref
    assert (third.raw, third.size, third.received_ms) == (first.raw, first.size, first.received_ms)
    assert (third.attempts, third.crashes) == (3, 1)
    assert len({first.lease_token, second.lease_token, third.lease_token}) == 3
    assert bench.record(third)["lease_token"] == third.lease_token.encode()
    assert bench.lease_end(third) == taken.server_ms + bench.broker_options.lease_ms


async def test_the_jobs_of_one_take_have_names_of_their_own(bench: Workbench) -> None:
    bench.push(b"same", b"same")
    bench.push(b"same", priority=3)

    jobs = bench.take().jobs

    assert len({job.ref for job in jobs}) == 3


async def test_only_new_jobs_are_counted_as_taken(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    jobs = bench.take().jobs
    assert bench.counters()["taken"] == 2

    await bench.moves.release(jobs)
    assert len(bench.take().jobs) == 2

    assert bench.counters()["taken"] == 2


async def test_the_queue_is_not_noted_as_empty_while_there_is_more_than_was_wanted(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    bench.take(1)
    assert not bench.run("HEXISTS", bench.keys.maintenance, "empty_at")

    taken = bench.take(2)

    assert taken.state is TakeState.JOBS  # the last ones, and nothing behind them
    assert int(bench.run("HGET", bench.keys.maintenance, "empty_at")) == taken.server_ms


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
async def test_a_record_that_somebody_destroyed_does_not_stop_the_others(bench: Workbench, damage: str) -> None:
    # given three jobs that are ready again, and the record of the second is gone
    bench.push(b"1", b"2", b"3")
    jobs = bench.take().jobs
    for job in reversed(jobs):
        await bench.moves.release([job])
    record = bench.record_key(jobs[1])
    bench.run("DEL", record)
    if damage == "overwritten":
        bench.run("SET", record, "somebody's own")
    bench.push(b"new")

    # when they are taken
    taken = bench.take()

    # then the others come, and the loss is counted
    assert raws(taken) == [b"1", b"3", b"new"]
    assert bench.counters()["vanished"] == 1
    if damage == "overwritten":
        assert bench.run("GETDEL", record) == b"somebody's own"


async def test_a_record_that_lost_its_numbers_is_a_job_all_the_same(bench: Workbench) -> None:
    bench.push(b"first", b"second")
    jobs = bench.take().jobs
    await bench.moves.release(jobs)
    bench.run("HDEL", bench.record_key(jobs[0]), "size", "first", "attempts", "crashes")

    taken = bench.take()

    assert sorted(raws(taken)) == [b"first", b"second"]
    maimed = next(job for job in taken.jobs if job.raw == b"first")
    assert (maimed.size, maimed.received_ms, maimed.attempts, maimed.crashes) == (len(b"first"), taken.server_ms, 0, 0)


async def test_only_vanished_jobs_leave_the_queue_empty(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.moves.release([job])
    bench.run("DEL", bench.record_key(job))

    taken = bench.take()

    assert (taken.state, taken.jobs) == (TakeState.EMPTY, [])
    assert bench.counters()["vanished"] == 1


async def test_two_workers_never_take_the_same_job(bench: Workbench) -> None:
    bench.push(*(b"%d" % number for number in range(10)))

    first, second = bench.take(6, worker="worker-1"), bench.take(6, worker="worker-2")

    assert raws(first) + raws(second) == [b"%d" % number for number in range(10)]


async def test_a_take_sent_twice_under_one_token_loses_no_message(bench: Workbench) -> None:
    """No worker of ours does so; a proxy or a client that repeats commands by itself might."""
    bench.push(b"1", b"2", b"3")

    once, twice = bench.take(2, token="one"), bench.take(2, token="one")

    assert raws(once) + raws(twice) == [b"1", b"2", b"3"]
    assert [bench.record(job)["raw"] for job in once.jobs + twice.jobs] == [b"1", b"2", b"3"]
