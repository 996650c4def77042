"""claim: what a job id stands for, and which jobs are duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from worker.broker.keys import digest
from worker.broker.records import Claim, ClaimAnswer, CompleteAnswer

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

GO, DUPLICATE, CONFLICT = ClaimAnswer.GO, ClaimAnswer.DUPLICATE, ClaimAnswer.CONFLICT
ID, HERE, ELSEWHERE = digest("a job"), digest("a conversation"), digest("another conversation")


async def end(bench: Workbench, **changes: Any) -> None:
    """A job with this id ends."""
    done = await bench.moves.complete([bench.completion(bench.take_one(), job_id="a job", **changes)])
    assert done == [CompleteAnswer.PUBLISHED]


async def test_a_new_id_may_go_on_and_is_remembered(bench: Workbench) -> None:
    assert await bench.moves.claim([Claim(ID, HERE)]) == [GO]

    key = bench.keys.id_prefix + ID
    assert bench.run("GET", key) == f"claimed {HERE}".encode()
    assert bench.broker_options.dedup_ttl_ms - 5_000 < bench.run("PTTL", key) <= bench.broker_options.dedup_ttl_ms


async def test_a_duplicate_in_flight_at_once_may_go_on_too(bench: Workbench) -> None:
    await bench.moves.claim([Claim(ID, HERE)])

    assert await bench.moves.claim([Claim(ID, HERE)]) == [GO]


async def test_the_time_to_remember_begins_anew_each_time_that_the_job_is_taken(bench: Workbench) -> None:
    await bench.moves.claim([Claim(ID, HERE)])
    key = bench.keys.id_prefix + ID
    bench.run("PEXPIRE", key, 1_000)

    await bench.moves.claim([Claim(ID, HERE)])

    assert bench.run("PTTL", key) > bench.broker_options.dedup_ttl_ms - 5_000


async def test_a_duplicate_that_comes_after_the_event_is_one(bench: Workbench) -> None:
    await bench.moves.claim([Claim(ID, HERE)])
    await end(bench)
    before = bench.snapshot()

    assert await bench.moves.claim([Claim(ID, HERE)]) == [DUPLICATE]

    assert bench.snapshot() == before


async def test_the_same_id_for_something_else_is_a_conflict_before_and_after_the_event(bench: Workbench) -> None:
    await bench.moves.claim([Claim(ID, HERE)])
    before = bench.snapshot()
    assert await bench.moves.claim([Claim(ID, ELSEWHERE)]) == [CONFLICT]
    assert bench.snapshot() == before

    await end(bench)
    assert await bench.moves.claim([Claim(ID, ELSEWHERE)]) == [CONFLICT]
    assert await bench.moves.claim([Claim(ID, HERE)]) == [DUPLICATE]


async def test_an_id_is_free_again_once_it_is_forgotten(bench: Workbench) -> None:
    await bench.moves.claim([Claim(ID, HERE)])
    await end(bench)
    bench.run("PEXPIRE", bench.keys.id_prefix + ID, 0)

    assert await bench.moves.claim([Claim(ID, ELSEWHERE)]) == [GO]


async def test_a_dry_run_and_the_job_of_one_id_are_each_duplicates_of_their_own_alone(bench: Workbench) -> None:
    rehearsal = Claim(ID, HERE, is_dry_run=True)
    assert await bench.moves.claim([rehearsal]) == [GO]
    await bench.moves.complete([bench.completion(bench.take_one(), job_id="a job", is_dry_run=True)])
    assert await bench.moves.claim([rehearsal, Claim(ID, HERE)]) == [DUPLICATE, GO]

    await end(bench, has_own_id=True)

    assert await bench.moves.claim([rehearsal, Claim(ID, HERE)]) == [DUPLICATE, DUPLICATE]


async def test_a_dry_run_after_the_job_may_go_on(bench: Workbench) -> None:
    await end(bench)
    before = bench.snapshot()

    assert await bench.moves.claim([Claim(ID, HERE, is_dry_run=True)]) == [GO]

    assert bench.snapshot() == before


@pytest.mark.parametrize("is_dry_run", [True, False])
async def test_an_id_stands_for_one_conversation_for_a_dry_run_and_the_job(
    bench: Workbench, *, is_dry_run: bool
) -> None:
    await bench.moves.claim([Claim(ID, HERE, is_dry_run)])
    before = bench.snapshot()
    assert await bench.moves.claim([Claim(ID, ELSEWHERE, not is_dry_run)]) == [CONFLICT]
    assert bench.snapshot() == before

    await bench.moves.complete([bench.completion(bench.take_one(), job_id="a job", is_dry_run=is_dry_run)])
    assert await bench.moves.claim([Claim(ID, ELSEWHERE, not is_dry_run)]) == [CONFLICT]


async def test_a_duplicate_of_a_dry_run_prolongs_nothing(bench: Workbench) -> None:
    rehearsal = Claim(ID, HERE, is_dry_run=True)
    await bench.moves.claim([rehearsal])
    await bench.moves.complete([bench.completion(bench.take_one(), job_id="a job", is_dry_run=True)])
    before = bench.snapshot()

    assert await bench.moves.claim([rehearsal]) == [DUPLICATE]

    assert bench.snapshot() == before


async def test_many_ids_are_claimed_in_one_call_each_with_its_answer(bench: Workbench) -> None:
    await end(bench)
    other = digest("another job")

    answers = await bench.moves.claim(
        [Claim(ID, HERE), Claim(other, HERE), Claim(other, ELSEWHERE), Claim(other, HERE), Claim(ID, ELSEWHERE)]
    )

    assert answers == [DUPLICATE, GO, CONFLICT, GO, CONFLICT]


async def test_a_key_that_somebody_put_where_an_id_belongs_makes_way(bench: Workbench) -> None:
    bench.run("RPUSH", bench.keys.id_prefix + ID, "not ours")
    other = bench.keys.id_prefix + digest("another") + ":other"
    bench.run("RPUSH", other, "not ours")

    assert await bench.moves.claim([Claim(ID, HERE), Claim(digest("another"), HERE, is_dry_run=True)]) == [GO, GO]

    assert bench.run("GET", bench.keys.id_prefix + ID) == f"claimed {HERE}".encode()
    bench.run("DEL", other)


async def test_a_call_with_no_ids_changes_nothing(bench: Workbench) -> None:
    assert await bench.moves.claim([]) == []
    assert bench.snapshot() == {}


async def test_repeating_it_changes_no_value(bench: Workbench) -> None:
    assert await bench.moves.claim([Claim(ID, HERE)]) == [GO]
    before = {key: value for key, (value, _) in bench.snapshot().items()}

    assert await bench.moves.claim([Claim(ID, HERE)]) == [GO]

    assert {key: value for key, (value, _) in bench.snapshot().items()} == before
