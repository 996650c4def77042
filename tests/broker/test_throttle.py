"""throttle: the rate that the whole fleet keeps to, and its pause.

While the API has asked for a pause nobody takes a job, and all that is in flight goes on. The rate is changed only from
the version that its change was made from, so that of many workers that are refused at once one lowers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.test_suspects import make_suspects
from tests.broker.workbench import wait_until
from tests.system.parts import flow_of
from worker.broker.records import CompleteAnswer, FleetNews, TakeState
from worker.runtime.in_flight import InFlight

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


def left_ms(bench: Workbench) -> int:
    """How long the pause lasts."""
    return int(bench.run("PTTL", bench.broker_options.fleet.pause))


async def test_under_a_pause_nothing_is_taken_and_the_answer_says_how_long_to_wait(bench: Workbench) -> None:
    await bench.moves.release([bench.take_one(b"again")])
    bench.push(b"new")
    bench.arrive(b"arrived")
    await bench.pause(30)
    before = bench.snapshot()

    taken = bench.take()

    assert (taken.state, taken.jobs) == (TakeState.PAUSED, [])
    assert 0 < taken.wait_ms <= 30_000
    assert taken.wait_ms - left_ms(bench) < 1_000
    assert bench.snapshot() == before


async def test_a_pause_ends_by_itself(bench: Workbench) -> None:
    bench.push(b"new")
    await bench.pause(30)
    assert bench.take().state is TakeState.PAUSED

    bench.run("PEXPIRE", bench.broker_options.fleet.pause, 5)

    wait_until(lambda: bench.take().state is TakeState.JOBS, "the end of the pause")


async def test_of_several_pauses_the_one_that_ends_last_counts(bench: Workbench) -> None:
    await bench.pause(20)
    await bench.pause(5)
    assert 5_000 < left_ms(bench) <= 20_000

    await bench.pause(40)
    assert 20_000 < left_ms(bench) <= 40_000


async def test_a_pause_of_a_part_of_a_millisecond_is_one_and_of_nothing_is_none(bench: Workbench) -> None:
    await bench.pause(0)
    assert bench.run("EXISTS", bench.broker_options.fleet.pause) == 0

    await bench.pause(0.000_1)
    assert left_ms(bench) <= 1
    wait_until(lambda: bench.run("EXISTS", bench.broker_options.fleet.pause) == 0, "the end of the pause")


async def test_a_pause_that_somebody_left_without_an_end_stops_nobody_and_the_next_one_ends(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    bench.run("SET", bench.broker_options.fleet.pause, "by hand")
    assert len(bench.take(1).jobs) == 1

    await bench.pause(30)

    assert 0 < left_ms(bench) <= 30_000
    assert bench.take().state is TakeState.PAUSED


async def test_deleting_the_key_ends_a_pause(bench: Workbench) -> None:
    bench.push(b"1")
    await bench.pause(30)

    bench.run("DEL", bench.broker_options.fleet.pause)

    assert len(bench.take().jobs) == 1


async def test_all_queues_of_a_fleet_pause_together(bench: Workbench) -> None:
    other = bench.beside("another queue")
    other.push(b"1")

    await other.pause(30)

    assert other.take().state is TakeState.PAUSED
    assert bench.take().state is TakeState.PAUSED
    assert bench.run("KEYS", "*pause") == [b"lw:1:moderation.lock:pause"]
    bench.run("DEL", other.keys.queue)


async def test_the_queues_of_another_fleet_go_on(bench: Workbench) -> None:
    other = bench.beside("another queue").under(fleet=bench.beside("another queue").keys)
    other.push(b"1")

    await bench.pause(30)

    (job,) = other.take().jobs
    await other.moves.complete([other.completion(job)])
    bench.run("DEL", other.keys.counters, other.keys.maintenance, other.broker_options.results)


async def test_nobody_empties_its_hands_for_a_suspect_during_a_pause(bench: Workbench) -> None:
    (suspect,) = await make_suspects(bench, b"suspect")
    await bench.pause(30)

    assert [bench.take(held=held).state for held in (0, 3)] == [TakeState.PAUSED] * 2

    assert bench.suspects() == [suspect.ref]
    assert bench.run("EXISTS", bench.keys.draining) == 0


async def test_a_pause_uses_no_permits(bench: Workbench) -> None:
    limited = bench.under(rate=1.0)
    limited.push(b"1")
    await limited.pause(30)

    assert limited.take().state is TakeState.PAUSED

    assert bench.run("EXISTS", bench.broker_options.fleet.rate) == 0


@pytest.mark.parametrize("move", ["complete", "delay", "release", "renew", "promote", "recover"])
async def test_what_is_in_flight_goes_on_during_a_pause(bench: Workbench, move: str) -> None:
    job = bench.take_one()
    await bench.pause(30)

    match move:
        case "complete":
            assert await bench.moves.complete([bench.completion(job)]) == [CompleteAnswer.PUBLISHED]
        case "delay":
            assert await bench.delay(job) == [True]
        case "release":
            assert await bench.moves.release([job]) == [True]
        case "renew":
            assert await bench.maintenance.renew([job]) == [True]
        case "promote":
            await bench.delay(job)
            bench.make_due(job)
            assert (await bench.promote()).count == 1
        case "recover":
            assert (await bench.crash(job)).count == 1


# The limit


async def test_a_change_is_seen_by_everybody_with_their_next_take_and_promote(bench: Workbench) -> None:
    before = bench.take().fleet
    assert before == FleetNews(version=0, epoch=0, rate=0.0, answered=0, failed=0, paused_ms=0, state=None)

    done, news = await bench.throttle(12.5, version=0, epoch=1, state='{"by":"worker-1"}')

    assert done
    assert news == FleetNews(
        version=news.version, epoch=1, rate=12.5, answered=0, failed=0, paused_ms=0, state=b'{"by":"worker-1"}'
    )
    assert news.version > 0
    assert bench.take().fleet == news
    assert (await bench.promote()).fleet == news


async def test_the_state_is_reported_only_to_whom_its_version_is_news(bench: Workbench) -> None:
    _, news = await bench.throttle(12.5)

    told = [bench.take(version=version).fleet.state for version in (-1, 0, news.version)]
    told += [(await bench.promote(version=version)).fleet.state for version in (0, news.version)]

    assert told == [b"a state", b"a state", None, b"a state", None]


async def test_of_two_changes_from_one_version_the_first_is_made_and_the_second_learns_of_it(bench: Workbench) -> None:
    _, first = await bench.throttle(10, version=0, epoch=1, state="first", pause=20)
    before = bench.snapshot()

    done, news = await bench.throttle(5, version=0, epoch=1, state="second", pause=50)

    assert (done, news.version, news.rate, news.state) == (False, first.version, 10, b"first")
    assert 0 < news.paused_ms <= 20_000
    assert bench.snapshot() == before


async def test_a_change_that_is_sent_twice_is_made_once(bench: Workbench) -> None:
    assert (await bench.throttle(10))[0]
    before = bench.snapshot()

    assert not (await bench.throttle(10))[0]

    assert bench.snapshot() == before


async def test_each_change_has_another_version_though_the_limit_was_deleted_meanwhile(bench: Workbench) -> None:
    """Else a worker that slept through it would take a new state for the one that it knows."""
    _, known = await bench.throttle(10)
    bench.run("DEL", bench.keys.limit)

    for _ in range(3):
        version = bench.take().fleet.version
        done, news = await bench.throttle(20, version=version)
        assert done
        assert news.version > version
        assert bench.take(version=known.version).fleet.state == b"a state"


async def test_a_pause_alone_changes_nothing_of_the_limit_whatever_its_version(bench: Workbench) -> None:
    await bench.throttle(10)
    before = bench.limit()

    done, news = await bench.throttle(99, version=77, epoch=5, state="", pause=30)

    assert done
    assert news.rate == 10
    assert 20_000 < news.paused_ms <= 30_000
    assert bench.limit() == before


async def test_a_change_and_its_pause_are_made_in_one_step_and_a_longer_pause_stays(bench: Workbench) -> None:
    await bench.pause(40)

    _, news = await bench.throttle(10, pause=20)

    assert 30_000 < news.paused_ms <= 40_000


async def test_calls_are_counted_for_the_whole_fleet(bench: Workbench) -> None:
    bench.take(answered=3, failed=1)
    assert (await bench.promote()).fleet.answered == 3

    fleet = bench.take(answered=2, worker="worker-2").fleet

    assert (fleet.answered, fleet.failed) == (5, 1)


async def test_calls_are_counted_also_in_a_pause_and_at_the_limit(bench: Workbench) -> None:
    await bench.pause(30)
    bench.take(answered=1)
    bench.run("DEL", bench.keys.pause)
    bench.push(b"1", b"2")
    limited = bench.under(rate=1.0)
    limited.take(answered=1)

    taken = limited.take(answered=1)

    assert (taken.state, taken.fleet.answered) == (TakeState.LIMITED, 3)


@pytest.mark.parametrize("rate", [0.1, 1.0, 3.5, 12.345678, 1e6, 1e9])
async def test_a_rate_comes_back_as_it_was_set(bench: Workbench, rate: float) -> None:
    _, news = await bench.throttle(rate)

    assert news.rate == rate


# What somebody else wrote there

NONSENSE = [
    "a word", "", "nan", "inf", "-inf", "-5", "0x10", "1e3", " 7 ", "7 calls", "1e300", "9" * 30,
    "9" * 5000, "\x00\xff",
]  # fmt: skip


@pytest.mark.parametrize("value", NONSENSE)
async def test_numbers_that_make_no_sense_are_as_good_as_none_and_the_fleet_goes_on(
    bench: Workbench, value: str
) -> None:
    bench.push(b"1", b"2")
    for field in ("version", "epoch", "rate", "answered", "failed", "probe_at"):
        bench.run("HSET", bench.keys.limit, field, value)

    taken = bench.take(1, is_probe=True)

    assert taken.fleet == FleetNews(version=0, epoch=0, rate=0.0, answered=0, failed=0, paused_ms=0, state=None)
    assert len(taken.jobs) == 1
    assert (await bench.promote()).fleet == taken.fleet

    # and the next counts and the next change put an end to it
    fleet = bench.take(1, answered=2, failed=1).fleet
    assert (fleet.answered, fleet.failed) == (2, 1)
    done, news = await bench.throttle(10, version=0, epoch=1)
    assert (done, news.epoch, news.rate, news.answered) == (True, 1, 10, 2)
    done, _ = await bench.throttle(20, version=news.version, epoch=2)
    assert done


@pytest.mark.parametrize("version", ["7", "007", "999999999999999"])
async def test_a_version_that_somebody_wrote_is_one_that_a_change_can_be_made_from(
    bench: Workbench, version: str
) -> None:
    bench.run("HSET", bench.keys.limit, "version", version)
    known = bench.take().fleet.version
    assert known == int(version)

    done, news = await bench.throttle(10, version=known)

    assert done
    assert news.version != known
    assert (await bench.throttle(20, version=news.version))[0]


async def test_a_rate_whose_state_somebody_deleted_is_obeyed_and_then_removed(bench: Workbench) -> None:
    """No worker would ever raise it. And a worker that took no notice would try without end to change it."""
    gates = flow_of(InFlight(1)).gates
    bench.run("HSET", bench.keys.limit, "version", "7", "rate", "0.5")

    gates.saw((await bench.promote(version=gates.version)).fleet)
    assert (gates.version, gates.rate) == (7, 0.5)
    change = gates.change()
    assert change is not None
    done, news = await bench.fleet.throttle(change)
    gates.saw(news)

    assert done
    assert (gates.version, gates.rate, gates.change()) == (news.version, 0.0, None)


async def test_counts_that_reach_the_end_begin_anew(bench: Workbench) -> None:
    bench.run("HSET", bench.keys.limit, "answered", "9" * 15, "failed", 2**63 - 1)

    bench.take(answered=2, failed=2)
    fleet = bench.take(answered=1, failed=1).fleet

    assert (fleet.answered, fleet.failed) == (1, 3)


async def test_a_rate_without_a_version_is_obeyed(bench: Workbench) -> None:
    """So that a person can slow the fleet down by hand."""
    bench.run("HSET", bench.keys.limit, "rate", "0.5")
    bench.push(b"1", b"2")

    takes = [bench.take(), bench.take()]

    assert [taken.state for taken in takes] == [TakeState.JOBS, TakeState.LIMITED]
    assert takes[0].fleet.rate == 0.5
