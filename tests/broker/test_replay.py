"""replay: dead letters become messages of new jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.broker.keys import PRIORITY_STEPS

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


async def dead_letter(bench: Workbench, message: bytes) -> str:
    """A job that failed; its entry in the dead stream."""
    end = bench.completion(bench.take_one(message), outcome="refused", is_dead_letter=True)
    await bench.moves.complete([end])
    ((entry, _),) = bench.client.xrevrange(bench.broker_options.dead, count=1)
    found: str = entry.decode()
    return found


async def test_a_replayed_letter_is_a_message_on_the_queue_and_a_dead_letter_no_longer(bench: Workbench) -> None:
    first, second, other = [await dead_letter(bench, message) for message in (b"1", b"2", b"3")]

    assert bench.replay([(first, b"1 again"), (second, b"2 again")]) == [1, 1]

    assert [message for _, message in bench.dead_letters()] == [b"3"]
    assert bench.client.xrange(bench.broker_options.dead)[0][0].decode() == other
    assert [job.raw for job in bench.take().jobs] == [b"1 again", b"2 again"]


async def test_a_letter_is_replayed_once_however_often_it_is_asked_for(bench: Workbench) -> None:
    entry = await dead_letter(bench, b"1")

    assert bench.replay([(entry, b"first"), (entry, b"second")]) == [1, 0]
    assert bench.replay([(entry, b"third")]) == [0]

    assert [job.raw for job in bench.take().jobs] == [b"first"]


async def test_it_waits_behind_what_is_there(bench: Workbench) -> None:
    entry = await dead_letter(bench, b"1")
    bench.push(b"waits")

    bench.replay([(entry, b"again")])

    assert [job.raw for job in bench.take().jobs] == [b"waits", b"again"]


@pytest.mark.parametrize("priority", range(10))
async def test_it_goes_to_the_list_of_its_priority_as_stock_celery_chooses_it(bench: Workbench, priority: int) -> None:
    entry = await dead_letter(bench, b"1")

    bench.replay([(entry, b"again")], priority=priority)

    step = max(step for step in PRIORITY_STEPS if step <= priority)
    assert bench.run("LRANGE", bench.keys.priority_lists[PRIORITY_STEPS.index(step)], 0, -1) == [b"again"]
    bench.take()
