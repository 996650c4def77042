"""The fleet's pause: while the API has asked for it nobody takes a job, and all that is in flight goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.test_suspects import make_suspects
from tests.broker.workbench import wait_until
from worker.broker.moves import CompleteAnswer, TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


def left_ms(bench: Workbench) -> int:
    """How long the pause lasts."""
    return int(bench.run("PTTL", bench.rules.fleet.pause))


async def test_under_a_pause_nothing_is_taken_and_it_is_told_how_long_to_wait(bench: Workbench) -> None:
    await bench.moves.release([bench.take_one(b"again")])
    bench.push(b"new")
    bench.arrive(b"arrived")
    await bench.moves.pause(30)
    before = bench.snapshot()

    taken = bench.take()

    assert (taken.state, taken.jobs) == (TakeState.PAUSED, [])
    assert 0 < taken.wait_ms <= 30_000
    assert taken.wait_ms - left_ms(bench) < 1_000
    assert bench.snapshot() == before


async def test_a_pause_ends_by_itself(bench: Workbench) -> None:
    bench.push(b"new")
    await bench.moves.pause(30)
    assert bench.take().state is TakeState.PAUSED

    bench.run("PEXPIRE", bench.rules.fleet.pause, 5)

    wait_until(lambda: bench.take().state is TakeState.JOBS, "the end of the pause")


async def test_of_several_pauses_the_one_that_ends_last_counts(bench: Workbench) -> None:
    await bench.moves.pause(20)
    await bench.moves.pause(5)
    assert 5_000 < left_ms(bench) <= 20_000

    await bench.moves.pause(40)
    assert 20_000 < left_ms(bench) <= 40_000


async def test_a_pause_of_a_part_of_a_millisecond_is_one_and_of_nothing_is_none(bench: Workbench) -> None:
    await bench.moves.pause(0)
    assert bench.run("EXISTS", bench.rules.fleet.pause) == 0

    await bench.moves.pause(0.000_1)
    assert left_ms(bench) <= 1
    wait_until(lambda: bench.run("EXISTS", bench.rules.fleet.pause) == 0, "the end of the pause")


async def test_a_pause_that_somebody_left_without_an_end_stops_nobody_and_the_next_one_ends(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    bench.run("SET", bench.rules.fleet.pause, "by hand")
    assert len(bench.take(1).jobs) == 1

    await bench.moves.pause(30)

    assert 0 < left_ms(bench) <= 30_000
    assert bench.take().state is TakeState.PAUSED


async def test_deleting_the_key_ends_a_pause(bench: Workbench) -> None:
    bench.push(b"1")
    await bench.moves.pause(30)

    bench.run("DEL", bench.rules.fleet.pause)

    assert len(bench.take().jobs) == 1


async def test_all_queues_of_a_fleet_pause_together(bench: Workbench) -> None:
    other = bench.beside("another queue")
    other.push(b"1")

    await other.moves.pause(30)

    assert other.take().state is TakeState.PAUSED
    assert bench.take().state is TakeState.PAUSED
    assert bench.run("KEYS", "*pause") == [b"lw:1:moderation.lock:pause"]
    bench.run("DEL", other.keys.queue)


async def test_the_queues_of_another_fleet_go_on(bench: Workbench) -> None:
    other = bench.beside("another queue").under(fleet=bench.beside("another queue").keys)
    other.push(b"1")

    await bench.moves.pause(30)

    (job,) = other.take().jobs
    await other.moves.complete([other.completion(job)])
    bench.run("DEL", other.keys.counters, other.keys.upkeep, other.rules.results)


async def test_nobody_empties_its_hands_for_a_suspect_during_a_pause(bench: Workbench) -> None:
    (suspect,) = await make_suspects(bench, b"suspect")
    await bench.moves.pause(30)

    assert [bench.take(held=held).state for held in (0, 3)] == [TakeState.PAUSED] * 2

    assert bench.suspects() == [suspect.ref]
    assert bench.run("EXISTS", bench.keys.draining) == 0


async def test_a_pause_uses_no_permits(bench: Workbench) -> None:
    limited = bench.under(rate=1.0)
    limited.push(b"1")
    await limited.moves.pause(30)

    assert limited.take().state is TakeState.PAUSED

    assert bench.run("EXISTS", bench.rules.fleet.rate) == 0


@pytest.mark.parametrize("move", ["complete", "delay", "release", "renew", "promote", "recover"])
async def test_what_is_in_flight_goes_on_during_a_pause(bench: Workbench, move: str) -> None:
    job = bench.take_one()
    await bench.moves.pause(30)

    match move:
        case "complete":
            assert await bench.moves.complete([bench.completion(job)]) == [CompleteAnswer.PUBLISHED]
        case "delay":
            assert await bench.moves.delay([(job, 60)]) == [True]
        case "release":
            assert await bench.moves.release([job]) == [True]
        case "renew":
            assert await bench.moves.renew([job]) == [True]
        case "promote":
            await bench.moves.delay([(job, 60)])
            bench.make_due(job)
            assert (await bench.moves.promote(between_ms=0)).count == 1
        case "recover":
            assert (await bench.crash(job)).count == 1
