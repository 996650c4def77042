"""What blocks without end holds up neither the loop nor the end of the process, and runs once at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from worker.broker.blocking_call import BlockingCall


def test_a_loop_ends_while_a_call_hangs() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def hang() -> None:
        go_on.wait()
        ended.set()

    async def give_up() -> None:
        async with asyncio.timeout(0.01):
            await BlockingCall(hang).result()

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())

    assert not ended.is_set()
    go_on.set()
    assert ended.wait(20)


async def test_who_asks_while_a_call_runs_gets_its_answer_though_another_one_gave_up() -> None:
    go_on = threading.Event()
    calls = []

    def count() -> int:
        go_on.wait(20)
        calls.append(1)
        return len(calls)

    call = BlockingCall(count)
    first, second = asyncio.create_task(call.result()), asyncio.create_task(call.result())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    go_on.set()

    assert await second == 1
    assert await call.result() == 2


async def test_an_error_is_raised_where_the_answer_is_waited_for_and_the_next_call_is_made_anew() -> None:
    answers = [b"late", b"\xff"]
    call = BlockingCall(lambda: answers.pop().decode())

    with pytest.raises(UnicodeDecodeError):
        await call.result()

    assert await call.result() == "late"
