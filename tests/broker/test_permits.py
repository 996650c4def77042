"""The limit that the API's refusals set, permits that came to no call, and the turns of probes.

A permit that comes back was given a moment ago. Whoever gets it then must not start a call in a second that is full
already: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm has no such case, so its bound is tested here.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from tests.broker.test_rate_limit import CLOCK_SECONDS, TimeMachine, most_in_a_second, most_in_a_window
from tests.broker.test_suspects import make_suspects
from worker.broker.move_limits import LIMIT_BURST_US, PROBE_GAP_MS, UNUSED_SECONDS
from worker.broker.records import TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


def give_all_until(bench: Workbench, seconds: float) -> int:
    """The permits are given for so long; returns the moment, in microseconds."""
    until = bench.now_ms() * 1000 + math.floor(seconds * 1_000_000)
    bench.run("SET", bench.keys.rate, until, "PX", math.ceil(seconds * 1000) + 1000)
    return until


def given_until(bench: Workbench) -> int:
    """Until when the permits are given, in microseconds."""
    return int(bench.run("GET", bench.keys.rate))


def given_for_seconds(bench: Workbench) -> float:
    """The same from now on; the server tells its time in whole milliseconds here."""
    return given_until(bench) / 1_000_000 - (bench.now_ms() + 1) / 1000


# The limit of the fleet


async def test_the_fleets_limit_counts_though_no_rate_is_configured(bench: Workbench) -> None:
    await bench.throttle(2.0)
    bench.push(b"1", b"2")

    takes = [bench.take(), bench.take()]

    assert [len(taken.jobs) for taken in takes] == [1, 0]
    assert takes[1].state is TakeState.LIMITED
    assert 0 < takes[1].wait_ms <= 500


@pytest.mark.parametrize(("configured", "found"), [(100.0, 10.0), (10.0, 100.0)])
async def test_of_the_configured_rate_and_the_fleets_limit_the_lower_one_counts(
    bench: Workbench, configured: float, found: float
) -> None:
    limited = bench.under(rate=configured)
    await bench.throttle(found)
    bench.push(b"1")

    taken = limited.take(1)

    assert len(taken.jobs) == 1
    assert 100_000 <= given_until(bench) - taken.server_ms * 1000 <= 102_000


async def test_a_burst_under_the_fleets_limit_is_a_short_one(bench: Workbench) -> None:
    await bench.throttle(200.0)
    bench.run("LPUSH", bench.keys.queue, *range(50))

    assert len(bench.take(50).jobs) == 1 + LIMIT_BURST_US // 5_000


@pytest.mark.parametrize("rate", ["0.000001", "0.0000000000000001", "0.04"])
async def test_no_limit_makes_the_fleet_wait_for_more_than_twenty_seconds(bench: Workbench, rate: str) -> None:
    bench.run("HSET", bench.keys.limit, "rate", rate)
    bench.push(b"1", b"2")
    bench.take(1)

    taken = bench.take(1)

    assert taken.state is TakeState.LIMITED
    assert 19_000 < taken.wait_ms <= 20_000


@pytest.mark.parametrize("rate", ["100000", "1000000", "99999999", "100000000000000"])
async def test_a_limit_beyond_all_calls_limits_nothing_that_a_take_may_want(bench: Workbench, rate: str) -> None:
    bench.run("HSET", bench.keys.limit, "rate", rate)
    bench.run("LPUSH", bench.keys.queue, *range(300))

    assert len(bench.take(256).jobs) == 256


async def test_a_limit_that_rises_frees_those_who_waited_under_the_low_one(bench: Workbench) -> None:
    _, news = await bench.throttle(0.05)
    bench.push(b"1", b"2")
    bench.take(1)
    assert bench.take(1).wait_ms > 15_000

    await bench.throttle(5.0, version=news.version)

    assert len(bench.take(1).jobs) == 1


# Permits that come back


@pytest.mark.parametrize("rate", [0.5, 3.0, 50.0])
async def test_a_permit_that_comes_back_at_once_is_given_again_at_once(bench: Workbench, rate: float) -> None:
    limited = bench.under(rate=rate)
    bench.run("LPUSH", bench.keys.queue, *range(100))
    first = len(limited.take(100).jobs)

    again = [len(limited.take(100, unused=first).jobs) for _ in range(5)]

    assert min(again) >= first
    assert max(again) <= first + 1, "time goes on meanwhile"


@pytest.mark.parametrize("unused", [1, 2, 50])
async def test_more_than_was_given_cannot_come_back(bench: Workbench, unused: int) -> None:
    await bench.throttle(0.1)
    bench.push(b"1", b"2", b"3")
    bench.take(1)

    takes = [bench.take(3, unused=unused), bench.take(3)]

    assert [len(taken.jobs) for taken in takes] == [1, 0]
    assert 9_000 < takes[1].wait_ms <= 10_000


async def test_what_comes_back_in_a_pause_is_not_lost(bench: Workbench) -> None:
    await bench.throttle(0.1, pause=30)
    give_all_until(bench, 9.0)

    assert bench.take(unused=1).state is TakeState.PAUSED

    assert given_for_seconds(bench) <= 0


async def test_what_comes_back_before_a_suspect_is_not_lost(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect")
    await bench.throttle(0.1)
    give_all_until(bench, 9.0)

    assert bench.take(held=3, unused=1).state is TakeState.DRAIN

    assert given_for_seconds(bench) <= 0


async def test_without_a_limit_nothing_is_noted_of_what_comes_back(bench: Workbench) -> None:
    bench.push(b"1")

    assert len(bench.take(unused=5).jobs) == 1

    assert bench.run("EXISTS", bench.keys.rate) == 0


async def test_what_comes_back_before_anything_was_given_gives_nothing_away(bench: Workbench) -> None:
    limited = bench.under(rate=2.0)
    limited.push(b"1", b"2", b"3")

    takes = [limited.take(unused=100), limited.take()]

    assert [len(taken.jobs) for taken in takes] == [1, 0]


@pytest.mark.parametrize("rate", [0.3, 0.9, 1.0, 1.5, 3.0, 4.0, 12.5, 99.9])
@pytest.mark.parametrize("is_fleets_own", [False, True])
async def test_no_second_has_too_many_calls_though_many_permits_come_back(
    bench: Workbench, rate: float, *, is_fleets_own: bool
) -> None:
    """Each take may turn out to have needed no call, which is known a tenth of a second later at most."""
    if is_fleets_own:
        await bench.throttle(rate)
    machine = TimeMachine(bench, None if is_fleets_own else rate)
    chance = random.Random(f"{rate}")
    unused = 0
    begun = machine.now()
    while machine.now() - begun < max(2.2, 3.5 / rate):
        before = len(machine.moments)
        machine.take(unused=unused)
        unused = len(machine.moments) - before if chance.random() < 0.5 else 0
        if unused:
            del machine.moments[before:]
            machine.wait(chance.uniform(0, 1000 * (UNUSED_SECONDS - CLOCK_SECONDS)))
        else:
            machine.wait(min(1000 / rate / 10, 100))

    assert most_in_a_window(machine.moments, 1.0) <= most_in_a_second(rate)
    # and under a low limit the calls are still a second apart
    if rate < 1:
        assert most_in_a_window(machine.moments, 1.0) == 1


# The turns of probes


async def test_the_fleet_probes_one_at_a_time(bench: Workbench) -> None:
    bench.push(b"1", b"2", b"3")

    takes = [bench.take(1, is_probe=True, worker=f"worker-{number}") for number in range(3)]

    assert [taken.state for taken in takes] == [TakeState.JOBS, TakeState.LIMITED, TakeState.LIMITED]
    assert all(0 < taken.wait_ms <= PROBE_GAP_MS for taken in takes[1:])


async def test_the_next_probe_may_go_when_its_time_has_come(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    bench.take(1, is_probe=True)
    probe_at = int(bench.limit()["probe_at"])
    assert 0 < probe_at - bench.now_ms() <= PROBE_GAP_MS

    bench.run("HSET", bench.keys.limit, "probe_at", bench.now_ms())

    assert len(bench.take(1, is_probe=True).jobs) == 1


async def test_takes_that_are_no_probes_go_on_beside_one(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    bench.take(1, is_probe=True)

    assert len(bench.take(1).jobs) == 1


async def test_a_probe_that_found_no_job_leaves_its_turn_to_the_next(bench: Workbench) -> None:
    assert bench.take(1, is_probe=True).state is TakeState.EMPTY
    bench.push(b"1")

    assert len(bench.take(1, is_probe=True).jobs) == 1


async def test_a_worker_whose_probe_came_to_no_call_may_probe_again_at_once(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    bench.take(1, is_probe=True)

    assert len(bench.take(1, is_probe=True, unused=1).jobs) == 1


async def test_a_probe_needs_a_permit_too(bench: Workbench) -> None:
    limited = bench.under(rate=1.0)
    bench.push(b"1", b"2")
    limited.take(1)

    taken = limited.take(1, is_probe=True)

    assert (taken.state, taken.jobs) == (TakeState.LIMITED, [])
    assert "probe_at" not in bench.limit()


async def test_a_suspect_that_is_taken_as_a_probe_uses_the_turn(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect")
    bench.push(b"1")

    assert bench.take(1, is_probe=True).state is TakeState.ALONE

    assert bench.take(1, is_probe=True).state is TakeState.LIMITED


@pytest.mark.parametrize("probe_at", ["in an hour", "a word", "nan", "inf", "-5"])
async def test_a_turn_that_no_probe_took_is_not_waited_for(bench: Workbench, probe_at: str) -> None:
    bench.push(b"1")
    in_an_hour = bench.now_ms() + 3_600_000
    bench.run("HSET", bench.keys.limit, "probe_at", in_an_hour if probe_at == "in an hour" else probe_at)

    assert len(bench.take(1, is_probe=True).jobs) == 1
