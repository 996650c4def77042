"""Redis does not roll a script back: a key that holds something else must be found before the first write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from tests.broker.every_move import MOVES, keys_of, script_of, set_scene

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


@pytest.mark.parametrize("name", MOVES)
async def test_a_key_of_a_wrong_type_is_named_and_nothing_is_changed(bench: Workbench, name: str) -> None:
    scene = await set_scene(bench, name)
    untouched = bench.snapshot()

    for key in set(await keys_of(name)) - {bench.keys.limit, bench.keys.absent}:
        # given a key that holds what no key of ours holds
        bench.run("DEL", key)
        bench.run("SADD", key, "not ours")
        before = bench.snapshot()

        # when the move meets it
        with pytest.raises(ResponseError) as refused:
            await MOVES[name](bench, scene)

        # then it tells what is wrong, and no message is lost
        assert f'WRONGTYPE key "{key}" holds a set' in str(refused.value)
        assert bench.snapshot() == before
        bench.put_back(untouched, key)

    # and with everything in its place again the move passes
    assert bench.snapshot() == untouched
    await MOVES[name](bench, scene)
    assert bench.snapshot() != untouched


async def test_a_take_that_finds_nothing_else_than_new_jobs_finds_a_wrong_type_too(bench: Workbench) -> None:
    """It asks once whether there is anything else, and not what. New jobs are never set aside with the delayed ones."""
    bench.take_one()
    bench.push(b"a job")
    untouched = bench.snapshot()

    for key in set(await keys_of("take")) - {bench.keys.limit, bench.keys.delayed, bench.keys.absent}:
        bench.run("DEL", key)
        bench.run("SADD", key, "not ours")
        before = bench.snapshot()

        with pytest.raises(ResponseError, match="WRONGTYPE"):
            bench.take()

        assert bench.snapshot() == before
        bench.put_back(untouched, key)

    assert len(bench.take().jobs) == 1


@pytest.mark.parametrize("name", [name for name in MOVES if script_of(name) in {"take", "promote", "throttle"}])
async def test_a_limit_of_a_wrong_type_is_thrown_away_and_the_move_goes_on(bench: Workbench, name: str) -> None:
    """It is advice. Nobody's mistake in it may stop the fleet."""
    scene = await set_scene(bench, name)
    bench.run("DEL", bench.keys.limit)
    bench.run("SADD", bench.keys.limit, "not ours")

    await MOVES[name](bench, scene)

    assert bench.run("TYPE", bench.keys.limit) in {b"none", b"hash"}


async def test_all_other_moves_leave_the_limit_alone() -> None:
    users = {script_of(name) for name in MOVES if "lw:1:moderation.lock:limit" in await keys_of(name)}

    assert users == {"take", "promote", "throttle"}
