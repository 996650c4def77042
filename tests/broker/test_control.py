"""control: what operators ask of a fleet is in force at once, durable, and in the control stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.workbench import TRAIL
from worker.broker.records import TakeState
from worker.message.controls import Control, Note, read_controls
from worker.message.selector import Selector

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.records import Delivery

HOLD = Control("hold", Selector(rule="r-1"), Note("an operator", "a reason"))
CANCEL = Control("cancel", Selector(rule="r-1", actor="a"), Note("an operator", "a reason", 7, 8))


def taken_jobs(bench: Workbench, count: int) -> list[Delivery]:
    bench.push(*[b"a job"] * count)
    return bench.take(count).jobs


async def test_no_job_is_taken_while_an_operator_pauses_the_fleet(bench: Workbench) -> None:
    bench.push(b"a job")
    version, done = await bench.control("pause")

    taken = bench.take()
    assert (taken.state, taken.jobs, done) == (TakeState.PAUSED, [], 1)
    assert taken.fleet.paused_ms > 60_000
    assert taken.fleet.controls == version

    assert (await bench.control("resume"))[1] == 1
    assert len(bench.take().jobs) == 1


async def test_a_pause_with_an_end_ends_by_itself(bench: Workbench) -> None:
    bench.push(b"a job")
    await bench.control("pause", until_ms=bench.now_ms() + 60_000)
    assert 0 < bench.take().fleet.paused_ms <= 60_000

    bench.run("HSET", bench.keys.controls, "paused_until", bench.now_ms() - 1)

    assert len(bench.take().jobs) == 1


async def test_resuming_ends_a_pause_of_the_apis_too_and_tells_where_there_is_none(bench: Workbench) -> None:
    await bench.pause(30)
    assert (await bench.control("resume"))[1] == 1
    assert bench.take().state is TakeState.EMPTY

    assert (await bench.control("resume"))[1] == 0


async def test_a_pause_of_the_apis_is_no_shorter_for_an_operators(bench: Workbench) -> None:
    await bench.control("pause", until_ms=bench.now_ms() + 5_000)
    await bench.pause(30)

    assert 20_000 < bench.take().fleet.paused_ms <= 30_000


async def test_a_job_grows_no_older_while_an_operator_pauses(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.moves.release([job])
    due = bench.client.zscore(bench.keys.deadlines, job.ref)
    await bench.control("pause")
    # given a pause that is longer than a job may live
    bench.run("HSET", bench.keys.controls, "paused_at", bench.now_ms() - bench.broker_options.max_age_ms - 1_000)

    assert await bench.expire() == []
    await bench.control("resume")
    assert await bench.expire() == []

    assert bench.client.zscore(bench.keys.deadlines, job.ref) == due
    (again,) = bench.take().jobs
    assert again.age_offset_ms == 0
    assert bench.take_one().age_offset_ms <= -bench.broker_options.max_age_ms


async def test_of_several_pauses_all_count(bench: Workbench) -> None:
    for _ in range(3):
        await bench.control("pause")
        bench.run("HSET", bench.keys.controls, "paused_at", bench.now_ms() - 10_000)
    await bench.control("resume")
    await bench.control("pause", until_ms=bench.now_ms() - 5_000)
    bench.run("HSET", bench.keys.controls, "paused_at", bench.now_ms() - 8_000)

    behind_ms = (await bench.promote()).fleet.ages_behind_ms

    assert 32_900 <= behind_ms < 35_000


async def test_each_action_has_a_new_version_and_an_event(bench: Workbench) -> None:
    versions = [
        (await bench.control("set", HOLD))[0],
        (await bench.control("set", CANCEL))[0],
        (await bench.control("remove", HOLD))[0],
        await bench.cancel("0" * 32),
    ]

    assert versions == sorted(set(versions))
    assert bench.client.xlen(TRAIL.stream) == 4
    assert (await bench.control("remove", HOLD))[1] == 0
    assert bench.client.xlen(TRAIL.stream) == 4
    found = read_controls(bench.client.hgetall(bench.keys.controls))
    assert (found.version, found.controls) == (versions[-1], (CANCEL,))


async def test_there_are_so_many_holds_at_most_and_a_known_one_can_still_be_set(bench: Workbench) -> None:
    await bench.control("set", HOLD)
    for number in range(1_010):
        bench.run("HSET", bench.keys.controls, f"hold {number}", "{}")

    assert (await bench.control("set", CANCEL))[1] == -1
    assert (await bench.control("set", HOLD))[1] == 1
    assert (await bench.control("remove", HOLD))[1] == 1


@pytest.mark.usefixtures("overwritten")
async def test_whatever_the_controls_hold_the_fleet_goes_on(bench: Workbench) -> None:
    bench.run(
        "HSET", bench.keys.controls, "version", "a word", "paused_at", "x", "paused_until", "y", "paused_total", "z"
    )
    bench.push(b"a job")

    taken = bench.take()

    assert (len(taken.jobs), taken.fleet.controls, taken.fleet.ages_behind_ms) == (1, 0, 0)


async def test_a_rule_that_asks_for_more_than_its_limit_is_held_and_others_are_not(bench: Workbench) -> None:
    wild, calm = taken_jobs(bench, 8), taken_jobs(bench, 2)
    assert await bench.count_rules({"wild": wild[:3], "calm": calm[:1]}, limit=3) == [0, 0]
    assert await bench.count_rules({"wild": wild[3:4], "calm": calm[1:]}, limit=3) == [2, 0]
    assert await bench.count_rules({"wild": wild[4:5]}, limit=3) == [1]

    (hold,) = read_controls(bench.client.hgetall(bench.keys.controls)).controls
    assert hold.selector == Selector(rule="wild")
    assert bench.client.xlen(TRAIL.stream) == 1

    # once it is released, it is counted anew
    await bench.control("remove", hold)
    assert await bench.count_rules({"wild": wild[5:]}, limit=3) == [0]


async def test_a_job_counts_for_its_rule_once_however_often_it_is_counted(bench: Workbench) -> None:
    job, *others = taken_jobs(bench, 3)

    for _ in range(3):  # as when the answer is lost
        assert await bench.count_rules({"wild": [job]}, limit=1) == [0]
    await bench.moves.release([job])  # as when its worker stops
    (job,) = bench.take(1).jobs
    assert await bench.count_rules({"wild": [job]}, limit=1) == [0]

    assert await bench.count_rules({"wild": others[:1]}, limit=1) == [2]


async def test_a_job_that_another_worker_has_by_now_is_left_to_that_one(bench: Workbench) -> None:
    (stale,) = taken_jobs(bench, 1)
    await bench.moves.release([stale])
    (job,) = bench.take(1).jobs

    assert await bench.count_rules({"wild": [stale]}, limit=0) == [0]
    bench.run("DEL", bench.record_key(job))
    assert await bench.count_rules({"wild": [job]}, limit=0) == [0]
    assert not bench.client.exists(bench.record_key(job))


async def test_what_a_rule_asked_for_long_ago_does_not_count(bench: Workbench) -> None:
    jobs = taken_jobs(bench, 7)
    await bench.count_rules({"wild": jobs[:3]}, limit=3, window_ms=60_000)
    (key,) = bench.client.keys(f"{bench.keys.rules_prefix}*")
    ((tenth, count),) = bench.client.hgetall(key).items()
    bench.run("DEL", key)
    bench.run("HSET", key, int(tenth) - 11, count)
    bench.run("PEXPIRE", key, 60_000)

    assert await bench.count_rules({"wild": jobs[3:6]}, limit=3, window_ms=60_000) == [0]
    assert await bench.count_rules({"wild": jobs[6:]}, limit=3, window_ms=60_000) == [2]
