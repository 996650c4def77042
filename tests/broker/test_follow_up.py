"""A take with the claim and the next wait behind it: one write, and the take is what it is when it is sent alone."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError

from tests.broker.workbench import wait_until
from worker.broker.keys import digest
from worker.broker.records import Claim, ClaimAnswer, TakeRequest, TakeState

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench
    from worker.broker.follow_up import FollowUp
    from worker.broker.records import Taken

CLAIM = Claim(digest("a job"), digest("a conversation"))


async def take(bench: Workbench, follow_up: FollowUp) -> Taken:
    return await bench.moves.take(
        TakeRequest(10, held=0),
        token=bench.new_token(),
        worker="worker-1",
        sent_at=time.monotonic(),
        follow_up=follow_up,
    )


@pytest.fixture
async def warm(bench: Workbench) -> Workbench:
    """A queue whose scripts the server knows, and a client that has a connection."""
    bench.take()
    await bench.moves.claim([Claim(digest("another job"), digest("a conversation"))])
    return bench


def reads(bench: Workbench) -> int:
    info: Any = bench.client.info("stats")
    return int(info["total_reads_processed"])


async def test_a_take_with_a_claim_and_a_wait_behind_it_is_read_by_the_server_at_once(warm: Workbench) -> None:
    warm.arrive(b"a job")
    before = reads(warm)

    follow_up = warm.moves.follow_up(CLAIM, wait_seconds=5)
    taken = await take(warm, follow_up)

    assert reads(warm) - before == 2  # the other one is the question for that number
    assert [job.raw for job in taken.jobs] == [b"a job"]
    assert follow_up.claimed == (CLAIM, ClaimAnswer.GO)
    assert follow_up.is_waiting
    await follow_up.give_up()


async def test_the_wait_behind_a_take_brings_the_next_message_to_the_arrived_list(warm: Workbench) -> None:
    follow_up = warm.moves.follow_up(None, wait_seconds=5)
    await take(warm, follow_up)
    waiting = asyncio.create_task(follow_up.wait())

    warm.push(b"the next")

    assert await waiting == b"the next"
    assert not follow_up.is_waiting
    assert warm.run("LRANGE", warm.keys.arrived, 0, -1) == [b"the next"]


async def test_a_wait_that_nobody_waits_for_any_more_is_over_at_the_server_too(warm: Workbench) -> None:
    follow_up = warm.moves.follow_up(None, wait_seconds=60)
    await take(warm, follow_up)
    wait_until(lambda: warm.client.info("clients")["blocked_clients"], "the wait")

    await follow_up.give_up()

    await asyncio.sleep(0)
    wait_until(lambda: not warm.client.info("clients")["blocked_clients"], "the end of the wait")
    warm.push(b"for others")
    assert warm.run("LLEN", warm.keys.arrived) == 0


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (f"claimed {CLAIM.fingerprint}", ClaimAnswer.GO),
        (f"ended {CLAIM.fingerprint}", ClaimAnswer.DUPLICATE),
        ("claimed another conversation", ClaimAnswer.CONFLICT),
    ],
)
async def test_the_claim_behind_a_take_is_answered_as_one_by_itself(
    warm: Workbench, state: str, answer: ClaimAnswer
) -> None:
    warm.run("SET", warm.keys.id_prefix + CLAIM.id_digest, state, "PX", 30_000)
    follow_up = warm.moves.follow_up(CLAIM, wait_seconds=5)

    await take(warm, follow_up)

    assert follow_up.claimed == (CLAIM, answer)
    await follow_up.give_up()


async def test_a_server_that_forgot_the_scripts_gives_the_jobs_and_nothing_of_the_rest(bench: Workbench) -> None:
    """The take is sent again by its whole text; the claim is then made as without a follow-up, and so is the wait."""
    bench.arrive(b"a job")
    bench.run("SCRIPT", "FLUSH")
    follow_up = bench.moves.follow_up(CLAIM, wait_seconds=60)

    taken = await take(bench, follow_up)

    assert [job.raw for job in taken.jobs] == [b"a job"]
    assert follow_up.claimed is None
    assert not follow_up.is_waiting
    assert await bench.moves.claim([CLAIM]) == [ClaimAnswer.GO]


async def test_a_claim_that_is_refused_costs_nothing_of_the_take(warm: Workbench) -> None:
    warm.arrive(b"a job")
    follow_up = warm.moves.follow_up(CLAIM, wait_seconds=60)
    follow_up._claim = (CLAIM, ["EVALSHA", "0" * 40, 0])

    taken = await take(warm, follow_up)

    assert [job.raw for job in taken.jobs] == [b"a job"]
    assert follow_up.claimed is None
    assert follow_up.is_waiting
    await follow_up.give_up()


async def test_a_take_that_is_refused_takes_nothing_and_leaves_nobody_waiting(warm: Workbench) -> None:
    warm.arrive(b"a job")
    warm.run("SADD", warm.keys.maintenance + "?", "not ours")
    warm.run("RENAME", warm.keys.maintenance + "?", warm.keys.maintenance)
    follow_up = warm.moves.follow_up(CLAIM, wait_seconds=60)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await take(warm, follow_up)

    assert not follow_up.is_waiting
    assert warm.run("LLEN", warm.keys.arrived) == 1
    await asyncio.sleep(0)
    wait_until(lambda: not warm.client.info("clients")["blocked_clients"], "the end of the wait")
    warm.run("DEL", warm.keys.maintenance)


async def test_a_claim_for_a_dry_run_is_one(warm: Workbench) -> None:
    """A dry run goes on though the real job of its id has ended."""
    warm.run("SET", warm.keys.id_prefix + CLAIM.id_digest, f"ended {CLAIM.fingerprint}", "PX", 30_000)
    follow_up = warm.moves.follow_up(CLAIM._replace(is_dry_run=True), wait_seconds=5)

    await take(warm, follow_up)

    assert follow_up.claimed == (CLAIM._replace(is_dry_run=True), ClaimAnswer.GO)
    await follow_up.give_up()


async def test_an_id_that_was_claimed_with_a_take_that_a_pause_answered_is_free_for_whoever_gets_the_job(
    warm: Workbench,
) -> None:
    warm.arrive(b"a job")
    await warm.pause(30)
    follow_up = warm.moves.follow_up(CLAIM, wait_seconds=5)

    taken = await take(warm, follow_up)
    await follow_up.give_up()

    assert taken.state is TakeState.PAUSED
    assert taken.jobs == []
    assert await warm.moves.claim([CLAIM]) == [ClaimAnswer.GO]
