"""recover: jobs of dead workers become ready again, one crash richer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from worker.broker.move_limits import KEPT_BYTES, LOGGED_JOBS, SUSPICIOUS_CRASHES, TAKE_BYTES, UPKEEP_JOBS
from worker.broker.records import CompleteAnswer

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


async def test_a_job_whose_worker_gave_no_sign_of_life_comes_back_one_crash_richer(bench: Workbench) -> None:
    job = bench.take_one(b"a message")
    bench.lapse(job)
    bench.fleet_was_awake()
    before = bench.now_ms()

    recovered = await bench.recover()

    assert (recovered.count, recovered.poisoned) == (1, [])
    assert before <= recovered.server_ms <= bench.now_ms()
    assert bench.in_flight() == []
    assert bench.again() == [job.ref]
    assert (bench.record(job)["lease_token"], bench.record(job)["crashes"]) == (b"", b"1")
    assert bench.counters() == {"taken": 1, "crashes": 1}


async def test_a_lease_that_holds_is_left_alone(bench: Workbench) -> None:
    job = bench.take_one()
    bench.fleet_was_awake()

    assert (await bench.recover()).count == 0

    assert bench.in_flight() == [job.ref]
    assert "crashes" not in bench.record(job)


async def test_recovered_jobs_queue_behind_those_that_were_ready_before_and_before_what_is_new(
    bench: Workbench,
) -> None:
    lost, released = bench.take_one(b"lost"), bench.take_one(b"released")
    await bench.moves.release([released])
    bench.push(b"new")

    await bench.crash(lost)

    assert [job.raw for job in bench.take().jobs] == [b"released", b"lost", b"new"]


async def test_only_recover_counts_crashes(bench: Workbench) -> None:
    """A job with many calls, delays, and pod restarts is no poisoned one."""
    job = bench.take_one()
    for _ in range(10):
        await bench.delay(job)
        bench.make_due(job)
        await bench.promote()
        (job,) = bench.take().jobs
        await bench.maintenance.renew([job])
        await bench.moves.release([job])
        (job,) = bench.take().jobs
    assert job.crashes == 0

    await bench.crash(job)

    assert bench.take().jobs[0].crashes == 1


async def test_a_job_with_a_few_crashes_is_a_suspect(bench: Workbench) -> None:
    job = bench.take_one()
    for crash in range(1, SUSPICIOUS_CRASHES):
        await bench.crash(job)
        assert (bench.again(), bench.suspects()) == ([job.ref], [])
        (job,) = bench.take().jobs
        assert job.crashes == crash

    recovered = await bench.crash(job)

    assert recovered.count == 1
    assert (bench.again(), bench.suspects()) == ([], [job.ref])


@pytest.mark.parametrize("poisonous", [2, 3, 5])
async def test_a_job_is_a_suspect_at_least_one_crash_before_it_is_poisoned(bench: Workbench, poisonous: int) -> None:
    """So only a job that ran alone is poisoned, and never one beside it."""
    strict = bench.under(max_deliveries=poisonous)
    job = bench.take_one()
    for crash in range(1, poisonous):
        assert (await strict.crash(job)).poisoned == []
        is_suspect = crash >= min(SUSPICIOUS_CRASHES, poisonous - 1)
        assert (bench.suspects() == [job.ref]) is is_suspect
        (job,) = bench.take(1).jobs
        assert job.runs_alone is is_suspect

    assert [job.ref for job in (await strict.crash(job)).poisoned] == [job.ref]
    assert job.runs_alone


async def test_a_poisoned_job_is_returned_in_flight_under_a_new_token(bench: Workbench) -> None:
    # given a job that all but one of the workers it takes to be poisoned died on
    job = bench.take_one(b"a message")
    job.attempts = 2
    await bench.moves.release([job])
    for _ in range(bench.broker_options.max_deliveries - 1):
        (job,) = bench.take(1).jobs
        await bench.crash(job)
    (job,) = bench.take(1).jobs
    bench.lapse(job)
    bench.fleet_was_awake()
    before = time.monotonic()

    # when the last one dies too
    recovered = await bench.recover()

    # then whoever found it has it in flight, and can end it
    assert recovered.count == 0
    (poisoned,) = recovered.poisoned
    assert (poisoned.ref, poisoned.raw, poisoned.size, poisoned.received_ms) == (
        job.ref,
        job.raw,
        job.size,
        job.received_ms,
    )
    assert (poisoned.attempts, poisoned.crashes) == (2, bench.broker_options.max_deliveries)
    assert poisoned.lease_token != job.lease_token
    assert bench.record(poisoned)["lease_token"] == poisoned.lease_token.encode()
    assert bench.lease_end(poisoned) == recovered.server_ms + bench.broker_options.lease_ms
    assert poisoned.lease_until >= before + bench.broker_options.lease_ms / 1000
    assert (bench.again(), bench.suspects()) == ([], [])
    assert bench.counters()["crashes"] == bench.broker_options.max_deliveries

    late = bench.completion(job)
    end = bench.completion(poisoned, event=b"poisoned", outcome="poisoned", is_dead_letter=True)
    assert await bench.moves.complete([late, end]) == [CompleteAnswer.GONE, CompleteAnswer.PUBLISHED]
    assert bench.dead_letters() == [(b"poisoned", b"a message")]


async def test_a_poisoned_job_whose_finder_died_too_is_found_again(bench: Workbench) -> None:
    strict = bench.under(max_deliveries=1)
    job = bench.take_one()
    (found,) = (await strict.crash(job)).poisoned

    (again,) = (await strict.crash(found)).poisoned

    assert again.ref == found.ref
    assert again.lease_token != found.lease_token
    assert again.crashes == 2


async def test_dead_workers_jobs_of_all_kinds_are_told_apart_in_one_call(bench: Workbench) -> None:
    bench.push(b"lost", b"suspect", b"poisoned", b"vanished", b"held")
    lost, suspect, poisoned, vanished, held = bench.take().jobs
    bench.run("HSET", bench.record_key(suspect), "crashes", SUSPICIOUS_CRASHES - 1)
    bench.run("HSET", bench.record_key(poisoned), "crashes", bench.broker_options.max_deliveries - 1)
    bench.run("DEL", bench.record_key(vanished))

    recovered = await bench.crash(lost, suspect, poisoned, vanished)

    assert recovered.count == 2
    assert [job.ref for job in recovered.poisoned] == [poisoned.ref]
    assert (bench.again(), bench.suspects()) == ([lost.ref], [suspect.ref])
    assert sorted(bench.in_flight()) == sorted([poisoned.ref, held.ref])
    assert (bench.counters()["crashes"], bench.counters()["vanished"]) == (3, 1)


async def test_the_first_worker_ever_gives_all_others_time_to_renew(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)

    assert (await bench.recover()).count is None

    assert bench.in_flight() == [job.ref]
    assert "crashes" not in bench.record(job)


async def test_after_a_silence_of_the_fleet_the_workers_get_time_to_renew(bench: Workbench) -> None:
    # given a server that was away for longer than any lease: nobody could renew, and nobody died
    bench.push(b"held", b"lost")
    held, lost = bench.take().jobs
    bench.lapse(held, lost)
    now = bench.now_ms()
    silent_since = now - bench.broker_options.silence_ms - 10_000
    bench.run("HSET", bench.keys.maintenance, "recovered_at", silent_since, "awake_since", silent_since - 3_600_000)

    # when the first worker is back, it takes nothing from anybody
    assert (await bench.recover()).count is None
    assert (await bench.recover()).count is None

    # and when the time is over, only those that did not renew are lost
    await bench.maintenance.renew([held])
    awake_since = int(bench.run("HGET", bench.keys.maintenance, "awake_since"))
    assert awake_since >= now
    bench.run("HSET", bench.keys.maintenance, "awake_since", awake_since - bench.broker_options.grace_ms)
    assert (await bench.recover()).count == 1
    assert (bench.in_flight(), bench.again()) == ([held.ref], [lost.ref])


async def test_every_worker_is_notified_of_the_time_to_renew_and_only_of_that(bench: Workbench) -> None:
    bench.run("HSET", bench.keys.maintenance, "recovered_at", bench.now_ms() - bench.broker_options.silence_ms - 1)

    first, second = [await bench.maintenance.recover(token=t, sent_at=0, between_ms=1_000) for t in ("first", "second")]
    assert (first.is_grace, second.is_grace) == (True, True)

    bench.fleet_was_awake()
    assert not (await bench.recover()).is_grace


async def test_jobs_of_the_living_outlast_a_clock_that_is_set_forward(bench: Workbench) -> None:
    # given a job in flight, and a server whose clock then shows an hour more: all that was noted is an hour ago
    job = bench.take_one()
    bench.fleet_was_awake()
    bench.lapse(job)
    for moment in ("recovered_at", "awake_since"):
        bench.run("HINCRBY", bench.keys.maintenance, moment, -3_600_000)

    # when its worker comes by
    assert (await bench.recover()).is_grace
    await bench.maintenance.renew([job])

    # then its lease holds when the time to renew is over
    bench.run("HINCRBY", bench.keys.maintenance, "awake_since", -bench.broker_options.grace_ms)
    assert (await bench.recover()).count == 0
    assert bench.in_flight() == [job.ref]


async def test_the_time_to_renew_is_no_longer_than_a_lease(bench: Workbench) -> None:
    assert bench.broker_options.grace_ms < bench.broker_options.lease_ms
    assert bench.under(lease_ms=100).broker_options.grace_ms == 100


async def test_a_worker_with_a_short_lease_measures_a_silence_of_the_fleet_by_the_longest_one(bench: Workbench) -> None:
    """It would begin a new time of grace whenever it stalls, and no dead worker's job would come back."""
    short = bench.under(lease_ms=500, longest_lease_ms=30_000)
    job = bench.take_one()
    bench.lapse(job)
    bench.fleet_was_awake()
    bench.run("HINCRBY", bench.keys.maintenance, "recovered_at", -1_000)

    assert (await short.recover()).count == 1
    assert (short.broker_options.silence_ms, short.broker_options.grace_ms) == (
        bench.broker_options.silence_ms,
        bench.broker_options.grace_ms,
    )


async def test_a_gap_shorter_than_a_silence_begins_no_new_time_of_grace(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)
    bench.fleet_was_awake()
    bench.run("HINCRBY", bench.keys.maintenance, "recovered_at", -bench.broker_options.silence_ms // 2)

    assert (await bench.recover()).count == 1


@pytest.mark.parametrize("lease_ms", [500, 1_000, 4_500, 30_000])
async def test_no_lease_that_was_renewed_in_time_ends_in_a_gap_that_is_no_silence(
    bench: Workbench, lease_ms: int
) -> None:
    renewed_every_ms = lease_ms / 3
    assert bench.under(lease_ms=lease_ms).broker_options.silence_ms <= lease_ms - renewed_every_ms


async def test_regular_rounds_begin_no_new_time_of_grace(bench: Workbench) -> None:
    bench.fleet_was_awake()
    awake_since = bench.run("HGET", bench.keys.maintenance, "awake_since")

    assert (await bench.recover()).count == 0

    assert bench.run("HGET", bench.keys.maintenance, "awake_since") == awake_since


async def test_a_clock_that_went_back_takes_nothing_from_anybody(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)
    ahead = bench.now_ms() + 3_600_000
    bench.run("HSET", bench.keys.maintenance, "recovered_at", ahead, "awake_since", ahead)

    assert (await bench.recover()).count is None

    assert int(bench.run("HGET", bench.keys.maintenance, "awake_since")) <= bench.now_ms()
    assert bench.in_flight() == [job.ref]


async def test_one_worker_of_the_fleet_is_enough(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)
    bench.fleet_was_awake()
    before = bench.snapshot()

    assert (await bench.recover(between_ms=60_000)).count is None

    assert bench.snapshot() == before


async def test_the_next_round_comes_when_its_time_has_come(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)
    bench.fleet_was_awake()
    bench.run("HINCRBY", bench.keys.maintenance, "recovered_at", -1000)

    recovered = await bench.recover(between_ms=1000)

    assert recovered.count == 1
    assert int(bench.run("HGET", bench.keys.maintenance, "recovered_at")) == recovered.server_ms


async def test_one_call_recovers_a_bounded_number(bench: Workbench) -> None:
    bench.run("LPUSH", bench.keys.queue, *range(UPKEEP_JOBS + 1))
    jobs = [job for _ in range(3) for job in bench.take(250).jobs]

    assert (await bench.crash(*jobs)).count == UPKEEP_JOBS
    assert (await bench.recover()).count == 1


async def test_a_full_batch_of_poisoned_jobs_is_returned(bench: Workbench) -> None:
    strict = bench.under(max_deliveries=1)
    bench.run("LPUSH", bench.keys.queue, *range(UPKEEP_JOBS))
    jobs = bench.take(250).jobs + bench.take(250).jobs

    assert len((await strict.crash(*jobs)).poisoned) == UPKEEP_JOBS


async def test_a_call_hands_over_about_a_megabyte_of_poisoned_jobs_and_the_next_one_the_rest(bench: Workbench) -> None:
    strict = bench.under(max_deliveries=1)
    big = bytes(TAKE_BYTES * 6 // 10)
    jobs = [bench.take_one(big) for _ in range(3)]

    first, second = await strict.crash(*jobs), await strict.recover()

    assert [job.ref for job in first.poisoned + second.poisoned] == [job.ref for job in jobs]
    assert [len(first.poisoned), len(second.poisoned)] == [2, 1]
    assert bench.counters()["crashes"] == 3


async def test_jobs_that_are_only_made_ready_again_fill_no_call_up_whatever_their_size(bench: Workbench) -> None:
    jobs = [bench.take_one(bytes(TAKE_BYTES * 6 // 10)) for _ in range(3)]

    assert (await bench.crash(*jobs)).count == 3


async def test_repeating_it_counts_no_crash_twice(bench: Workbench) -> None:
    job = bench.take_one()

    assert (await bench.crash(job)).count == 1
    assert (await bench.recover()).count == 0

    assert bench.record(job)["crashes"] == b"1"
    assert bench.again() == [job.ref]


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
async def test_a_job_whose_record_was_destroyed_is_counted_as_vanished(bench: Workbench, damage: str) -> None:
    bench.push(b"1", b"2", b"3")
    jobs = bench.take().jobs
    record = bench.record_key(jobs[1])
    bench.run("DEL", record)
    if damage == "overwritten":
        bench.run("SET", record, "somebody's own")

    assert (await bench.crash(*jobs)).count == 2

    assert bench.again() == [jobs[0].ref, jobs[2].ref]
    assert bench.in_flight() == []
    assert bench.counters()["vanished"] == 1
    if damage == "overwritten":
        assert bench.run("GETDEL", record) == b"somebody's own"


@pytest.mark.parametrize("poisonous", [1, 5])
async def test_a_record_that_lost_its_numbers_does_not_stop_the_others(bench: Workbench, poisonous: int) -> None:
    bench.push(b"1", b"2")
    jobs = bench.take().jobs
    bench.run("HDEL", bench.record_key(jobs[0]), "size", "first", "attempts", "crashes")

    recovered = await bench.under(max_deliveries=poisonous).crash(*jobs)

    found = recovered.poisoned or bench.take().jobs
    assert [(job.raw, job.size, job.attempts, job.crashes) for job in found] == [(b"1", 1, 0, 1), (b"2", 1, 0, 1)]


async def test_the_workers_that_were_lost_are_named_with_the_number_of_their_jobs(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3")
    one, two, three = (bench.take(1, token=f"{worker}.7").jobs[0] for worker in ("pod-a", "pod-a", "pod-b"))

    recovered = await bench.crash(one, two, three)

    assert recovered.workers == {"pod-a": 2, "pod-b": 1}
    assert (bench.counters()["crashes"], bench.counters()["workers_lost"]) == (3, 2)


async def test_a_worker_whose_jobs_are_found_in_several_rounds_is_counted_once(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    one, two = (bench.take(1, token=f"pod-a.{number}").jobs[0] for number in (1, 2))

    found = [(await bench.crash(job)).workers for job in (one, two)]

    assert found == [{"pod-a": 1}, {"pod-a": 1}]
    assert (bench.counters()["crashes"], bench.counters()["workers_lost"]) == (2, 1)


async def test_of_very_many_lost_workers_the_last_ones_are_remembered(bench: Workbench) -> None:
    bench.run("HSET", bench.keys.maintenance, "lost", f" {' '.join(f'pod-{number}' for number in range(1000))} ")
    bench.push(b"message")

    await bench.crash(bench.take(1, token="new.1").jobs[0])

    lost = bench.run("HGET", bench.keys.maintenance, "lost")
    assert lost.startswith(b" new pod-0 ")
    assert len(lost) <= 2000


async def test_some_messages_are_returned_so_that_the_log_can_name_the_jobs(bench: Workbench) -> None:
    small, large = [b"%d" % number for number in range(LOGGED_JOBS + 1)], bytes(KEPT_BYTES + 1)
    bench.run("LPUSH", bench.keys.queue, large, *small)

    recovered = await bench.crash(*bench.take(LOGGED_JOBS + 2).jobs)

    assert recovered.count == LOGGED_JOBS + 2
    assert len(set(recovered.messages)) == LOGGED_JOBS
    assert set(recovered.messages) < set(small)
