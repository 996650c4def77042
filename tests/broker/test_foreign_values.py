"""Keys of the right type, in which somebody put something that we never would: no move stops because of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.every_move import MOVES, set_scene

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

FIELDS = {
    "counters": (
        "taken", "finished", "deduplicated", "delayed", "released", "crashes", "workers_lost", "vanished",
        "outcome:refused",
    ),
    "maintenance": ("promoted_at", "recovered_at", "awake_since", "empty_at", "lost", "taken_newest", "taken_1"),
    "limit": ("version", "epoch", "rate", "answered", "failed", "probe_at", "state"),
}  # fmt: skip


@pytest.mark.parametrize("key", FIELDS)
@pytest.mark.parametrize("name", MOVES)
async def test_words_in_place_of_numbers_stop_no_move(bench: Workbench, name: str, key: str) -> None:
    scene = await set_scene(bench, name)
    for field in FIELDS[key]:
        bench.run("HSET", getattr(bench.keys, key), field, "a word")
    before = bench.snapshot()

    await MOVES[name](bench, scene)

    is_advice_alone = (name, key) == ("throttle", "limit")  # made from a version that is not there
    assert (bench.snapshot() != before) != is_advice_alone
    bench.run("FLUSHALL")  # with its totals gone, nothing can be checked of this queue any more


async def test_a_word_in_place_of_the_last_round_begins_a_new_time_of_grace(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)
    bench.run("HSET", bench.keys.maintenance, "recovered_at", "a word", "awake_since", "a word")

    assert (await bench.recover()).count is None

    assert bench.in_flight() == [job.ref]
    assert abs(int(bench.run("HGET", bench.keys.maintenance, "awake_since")) - bench.now_ms()) < 10_000
