"""The thread of the asyncio loop: whose loop it is, and that a start which fails raises where it is waited for."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from worker.runtime.loop_thread import LoopThread


def test_a_loop_that_cannot_begin_raises_at_the_start_and_leaves_no_thread_behind() -> None:
    async def begin() -> None:
        raise OSError("no service")

    thread = LoopThread()
    with pytest.raises(OSError, match="no service"):
        thread.start(begin)

    thread.join(5)
    assert not thread.is_alive


def test_the_loop_is_uvloops() -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    thread = LoopThread()

    async def begin() -> None:
        loops.append(asyncio.get_running_loop())

    thread.start(begin)
    thread.call(thread.stop)
    thread.join(5)

    assert isinstance(loops[0], uvloop.Loop)
