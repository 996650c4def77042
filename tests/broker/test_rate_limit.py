"""The rate limit of the whole fleet, inside take: a backlog waits in Redis, whatever workers want.

A call that starts late moves closer to the next one, so the permits of a second must stay below what may start in it.
Most tests let no time pass: setting the ``rate`` key back by so much is the same.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from tests.broker.test_suspects import make_suspects
from tests.broker.workbench import wait_until
from worker.broker.records import TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

BURST_SECONDS = 0.08
CLOCK_SECONDS = 0.002
"""How much two moments may be off that are told in whole milliseconds."""

RATES = [0.3, 1.0, 1.5, 2.0, 3.0, 3.9, 4.0, 4.7, 7.5, 12.5, 20.0, 99.9, 600.0]


def most_in_a_second(rate: float) -> int:
    """How many calls may start within any second: 1.25 times the rate, or the next whole number above a low one."""
    return max(math.floor(1.25 * rate), math.ceil(rate))


def most_in_a_window(moments: list[float], seconds: float) -> int:
    """How many of the moments, which are in order, at most lie closer together than so many seconds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


class TimeMachine:
    """A queue with work for ever, on a clock that goes on when it is told to."""

    def __init__(self, bench: Workbench, rate: float | None) -> None:
        self.bench = bench.under(rate=rate)
        self.key = bench.broker_options.fleet.rate
        self.passed_ms = 0.0
        self.moments: list[float] = []
        self.answers: list[TakeState] = []

    def now(self) -> float:
        return (self.bench.now_ms() + self.passed_ms) / 1000

    def wait(self, ms: float) -> None:
        until = self.bench.run("GET", self.key)
        if until is not None:
            self.bench.run("SET", self.key, max(0, int(until) - math.floor(ms * 1000)), "PX", 60_000)
        self.passed_ms += ms

    def take(self, wanted: int = 200, *, unused: int = 0) -> int:
        """Take, end what was taken at once, and tell how long to wait, in milliseconds."""
        bench = self.bench
        missing = wanted - bench.run("LLEN", bench.keys.queue)
        if missing > 0:
            bench.run("LPUSH", bench.keys.queue, *range(missing))
        taken = bench.take(wanted, unused=unused)
        self.answers.append(taken.state)
        self.moments += [(taken.server_ms + self.passed_ms) / 1000] * len(taken.jobs)
        for job in taken.jobs:
            bench.run("DEL", bench.record_key(job))
            bench.run("ZREM", bench.keys.leases, job.ref)
        bench.run("HINCRBY", bench.keys.counters, "vanished", len(taken.jobs))
        return taken.wait_ms


async def test_without_a_limit_as_many_are_taken_as_are_wanted_and_nothing_is_noted(bench: Workbench) -> None:
    bench.run("LPUSH", bench.keys.queue, *range(200))

    assert len(bench.take(200).jobs) == 200

    assert bench.run("EXISTS", bench.broker_options.fleet.rate) == 0


async def test_a_take_is_cut_to_the_permits_of_a_burst_and_the_rest_stays(bench: Workbench) -> None:
    limited = bench.under(rate=100.0)
    limited.push(*(b"%d" % number for number in range(50)))

    taken = limited.take(50)

    assert taken.state is TakeState.JOBS
    assert [job.raw for job in taken.jobs] == [b"%d" % number for number in range(9)]  # now, and 8 in 80 milliseconds
    assert bench.run("LLEN", bench.keys.queue) == 41


async def test_no_more_than_wanted_are_taken_though_there_are_more_permits(bench: Workbench) -> None:
    limited = bench.under(rate=100.0)
    limited.push(b"1", b"2", b"3")

    assert len(limited.take(2).jobs) == 2


async def test_jobs_that_come_back_need_a_permit_like_new_ones(bench: Workbench) -> None:
    limited = bench.under(rate=1.0)
    limited.push(b"1", b"2")
    jobs = bench.take(2).jobs
    await bench.moves.release(jobs)

    takes = [limited.take(2), limited.take(2)]

    assert [len(taken.jobs) for taken in takes] == [1, 0]
    assert len(bench.again()) == 1


async def test_at_the_limit_nothing_is_taken_or_changed_and_the_wait_is_reported(bench: Workbench) -> None:
    limited = bench.under(rate=2.0)
    limited.push(b"1", b"2")
    limited.take()
    before = bench.snapshot()

    taken = limited.take()

    assert (taken.state, taken.jobs) == (TakeState.LIMITED, [])
    assert 0 < taken.wait_ms <= math.ceil(limited.broker_options.interval_us / 1000)
    assert bench.snapshot() == before


async def test_when_the_wait_is_over_there_is_a_permit(bench: Workbench) -> None:
    limited = bench.under(rate=20.0)
    limited.push(b"1", b"2", b"3", b"4", b"5")
    while (taken := limited.take(1)).state is not TakeState.LIMITED:
        pass
    started = time.monotonic()

    wait_until(lambda: time.monotonic() - started >= taken.wait_ms / 1000, "the wait that was told")

    assert len(limited.take(1).jobs) == 1


@pytest.mark.parametrize("rate", RATES)
async def test_no_second_has_more_permits_than_the_rate_allows_however_greedily_they_are_taken(
    bench: Workbench, rate: float
) -> None:
    # given a worker that does not wait as it is told but asks again and again, after a quiet time
    machine = TimeMachine(bench, rate)
    step_ms = max(2.0, machine.bench.broker_options.interval_us / 1000 / 25)
    machine.take(1)
    machine.wait(max(2000, 2000 / rate))
    begun = machine.now()

    # when it takes for some seconds all it can
    while machine.now() - begun < max(2.2, 3.5 / rate):
        machine.take()
        machine.wait(step_ms)

    # then no second has too many, with room for calls that start a twentieth of a second late
    assert most_in_a_window(machine.moments, 1.0) <= most_in_a_second(rate)
    assert most_in_a_window(machine.moments, 1.04) <= most_in_a_second(rate)
    # and no time at all has more than the rate and the burst
    for seconds in (0.05, 0.2, 1.0, 3.0):
        assert most_in_a_window(machine.moments, seconds) <= (seconds + CLOCK_SECONDS + BURST_SECONDS) * rate + 1


@pytest.mark.parametrize("rate", RATES)
async def test_a_worker_that_waits_as_it_is_answered_gets_what_the_rate_says_and_asks_rarely(
    bench: Workbench, rate: float
) -> None:
    machine = TimeMachine(bench, rate)
    begun, seconds = machine.now(), max(3.0, 5 / rate)

    while machine.now() - begun < seconds:
        machine.wait(machine.take())

    # Of the time that it was told to wait: what a busy machine takes beside that, it may lose.
    assert len(machine.moments) >= 0.9 * rate * machine.passed_ms / 1000 - 1
    passed = machine.now() - begun
    pairs = zip(machine.answers, machine.answers[1:], strict=False)
    assert (TakeState.LIMITED, TakeState.LIMITED) not in list(pairs)
    assert machine.answers.count(TakeState.LIMITED) <= passed * min(rate, 4 / BURST_SECONDS) + 1


@pytest.mark.parametrize("rate", [50.0, 400.0])
async def test_several_workers_share_the_permits_on_the_servers_clock(bench: Workbench, rate: float) -> None:
    limited = bench.under(rate=rate)
    limited.run("LPUSH", bench.keys.queue, *range(1000))
    moments: list[float] = []
    began_ms = bench.now_ms()

    def everybody_takes() -> bool:
        for number in range(4):
            taken = limited.take(7, worker=f"worker-{number}")
            moments.extend([taken.server_ms / 1000] * len(taken.jobs))
        return bench.now_ms() - began_ms >= 600

    wait_until(everybody_takes, "600 milliseconds of the server's clock")

    passed = (bench.now_ms() - began_ms) / 1000
    assert 0.8 * rate * passed <= len(moments) <= (passed + BURST_SECONDS) * rate + 1
    for seconds in (0.05, 0.1, 0.3):
        assert most_in_a_window(moments, seconds) <= (seconds + CLOCK_SECONDS + BURST_SECONDS) * rate + 1


async def test_only_jobs_that_are_taken_use_permits(bench: Workbench) -> None:
    limited = bench.under(rate=100.0)
    assert limited.take().state is TakeState.EMPTY
    assert bench.run("EXISTS", bench.broker_options.fleet.rate) == 0

    limited.push(b"1", b"2")
    taken = limited.take(9)

    given_until_ms = int(bench.run("GET", bench.broker_options.fleet.rate)) / 1000
    assert 20 <= given_until_ms - taken.server_ms < 30


async def test_a_suspect_uses_a_permit(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect", b"suspect too")
    limited = bench.under(rate=1.0)

    takes = [limited.take(), limited.take()]

    assert [taken.state for taken in takes] == [TakeState.ALONE, TakeState.LIMITED]
    assert len(bench.suspects()) == 1


async def test_nobody_empties_its_hands_for_a_suspect_that_has_no_permit(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect")
    limited = bench.under(rate=1.0)
    bench.push(b"new")
    bench.run("SET", bench.broker_options.fleet.rate, (bench.now_ms() + 900) * 1000, "PX", 5_000)

    assert limited.take(held=3).state is TakeState.LIMITED

    assert bench.run("EXISTS", bench.keys.draining) == 0


async def test_all_queues_of_a_fleet_share_one_limit(bench: Workbench) -> None:
    limited = bench.under(rate=1.0)
    other = limited.beside("another queue")
    limited.push(b"1")
    other.push(b"1")

    assert len(limited.take().jobs) == 1

    assert other.take().state is TakeState.LIMITED
    assert bench.run("KEYS", "*rate") == [b"lw:1:moderation.lock:rate"]
    bench.run("DEL", other.keys.queue)


async def test_the_limit_is_forgotten_when_nobody_takes_for_a_while(bench: Workbench) -> None:
    limited = bench.under(rate=100.0)
    limited.push(b"1")

    limited.take()

    assert 0 < bench.run("PTTL", bench.broker_options.fleet.rate) <= 1_200


@pytest.mark.parametrize("value", ["in an hour", "a word", "", "inf", "nan", "-5", "1e300", "0x10", "9" * 400])
async def test_a_moment_that_no_take_wrote_is_not_waited_for(bench: Workbench, value: str) -> None:
    """A server's clock that was set back leaves one in an hour, and so does a limit that was far lower before."""
    limited = bench.under(rate=2.0)
    limited.push(b"1", b"2")
    in_an_hour_us = (bench.now_ms() + 3_600_000) * 1000
    bench.run(
        "SET", bench.broker_options.fleet.rate, in_an_hour_us if value == "in an hour" else value, "PX", 3_600_000
    )

    takes = [limited.take(), limited.take()]

    assert [taken.state for taken in takes] == [TakeState.JOBS, TakeState.LIMITED]
    assert [len(taken.jobs) for taken in takes] == [1, 0]
    assert bench.run("PTTL", bench.broker_options.fleet.rate) < 3_000


async def test_a_small_step_back_of_the_servers_clock_gives_no_permit_away(bench: Workbench) -> None:
    limited = bench.under(rate=20.0)
    limited.push(*(b"%d" % number for number in range(9)))
    limited.take()
    until = int(bench.run("GET", bench.broker_options.fleet.rate))
    bench.run("SET", bench.broker_options.fleet.rate, until + 500_000, "PX", 5_000)

    taken = limited.take()

    assert taken.state is TakeState.LIMITED
    assert 400 < taken.wait_ms < 700
