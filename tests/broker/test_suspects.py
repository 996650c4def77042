"""A job that workers died on runs alone, so that it takes no neighbours with it: the part of take that sees to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.workbench import wait_until
from worker.broker.move_limits import DRAIN_MS, SUSPICIOUS_CRASHES
from worker.broker.records import TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.records import Delivery


async def make_suspects(bench: Workbench, *messages: bytes) -> list[Delivery]:
    """Jobs that just enough workers died on."""
    bench.push(*messages)
    jobs = bench.take(len(messages)).jobs
    for _ in range(SUSPICIOUS_CRASHES - 1):
        await bench.crash(*jobs)
        jobs = bench.take(len(messages)).jobs
    await bench.crash(*jobs)
    assert bench.suspects() == [job.ref for job in jobs]
    return jobs


async def test_a_suspect_comes_alone_to_a_worker_without_jobs_in_flight(bench: Workbench) -> None:
    (suspect,) = await make_suspects(bench, b"suspect")
    bench.push(b"new")

    taken = bench.take(10, held=0)

    assert taken.state is TakeState.ALONE
    (job,) = taken.jobs
    assert (job.ref, job.raw, job.crashes, job.runs_alone) == (suspect.ref, b"suspect", SUSPICIOUS_CRASHES, True)
    assert bench.suspects() == []
    assert bench.record(job)["lease_token"] == job.lease_token.encode()
    assert bench.lease_end(job) == taken.server_ms + bench.broker_options.lease_ms


async def test_suspects_come_one_by_one_in_their_order(bench: Workbench) -> None:
    await make_suspects(bench, b"first", b"second")

    taken = [bench.take(), bench.take()]

    assert [[job.raw for job in take.jobs] for take in taken] == [[b"first"], [b"second"]]
    assert [take.state for take in taken] == [TakeState.ALONE, TakeState.ALONE]


async def test_a_worker_with_full_hands_is_asked_to_empty_them(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect")
    bench.push(b"new")

    taken = bench.take(10, held=3, worker="worker-1")

    assert (taken.state, taken.jobs) == (TakeState.DRAIN, [])
    assert bench.run("GET", bench.keys.draining) == b"worker-1"
    assert 0 < bench.run("PTTL", bench.keys.draining) <= DRAIN_MS
    assert bench.run("LLEN", bench.keys.queue) == 1


async def test_one_worker_at_a_time_empties_its_hands_and_the_others_go_on(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect")
    bench.push(b"new")
    bench.take(10, held=3, worker="worker-1")

    other = bench.take(10, held=3, worker="worker-2")
    still = bench.take(10, held=2, worker="worker-1")

    assert (other.state, [job.raw for job in other.jobs]) == (TakeState.JOBS, [b"new"])
    assert still.state is TakeState.DRAIN
    assert bench.run("GET", bench.keys.draining) == b"worker-1"


async def test_asking_again_does_not_prolong_the_time_a_worker_has_to_drain(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect")
    bench.take(10, held=3)
    bench.run("PEXPIRE", bench.keys.draining, 5_000)

    bench.take(10, held=2)

    assert 0 < bench.run("PTTL", bench.keys.draining) <= 5_000


async def test_a_worker_that_never_empties_its_hands_gives_way_to_the_next(bench: Workbench) -> None:
    await make_suspects(bench, b"suspect")
    bench.take(10, held=3, worker="worker-1")
    bench.run("PEXPIRE", bench.keys.draining, 1)
    wait_until(lambda: bench.run("EXISTS", bench.keys.draining) == 0, "the claim to expire")

    taken = bench.take(10, held=3, worker="worker-2")

    assert taken.state is TakeState.DRAIN
    assert bench.run("GET", bench.keys.draining) == b"worker-2"


@pytest.mark.parametrize("worker", ["worker-1", "worker-2"])
async def test_whoever_takes_the_suspect_ends_the_draining(bench: Workbench, worker: str) -> None:
    await make_suspects(bench, b"suspect")
    bench.take(10, held=3, worker="worker-1")

    taken = bench.take(10, held=0, worker=worker)

    assert taken.state is TakeState.ALONE
    assert bench.run("EXISTS", bench.keys.draining) == 0
    bench.push(b"new")
    assert [job.raw for job in bench.take(10, held=2, worker="worker-1").jobs] == [b"new"]


async def test_a_suspect_whose_record_is_gone_holds_nobody_up(bench: Workbench) -> None:
    (suspect,) = await make_suspects(bench, b"suspect")
    bench.run("DEL", bench.record_key(suspect))
    bench.push(b"new")
    bench.take(10, held=3)

    taken = bench.take(10, held=0)

    assert (taken.state, [job.raw for job in taken.jobs]) == (TakeState.JOBS, [b"new"])
    assert not taken.jobs[0].runs_alone
    assert bench.counters()["vanished"] == 1
    assert bench.run("EXISTS", bench.keys.draining) == 0
