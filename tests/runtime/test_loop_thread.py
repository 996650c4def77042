"""The thread of the asyncio loop: what goes wrong at its start is raised where the start is waited for."""

from __future__ import annotations

import pytest

from worker.runtime.loop_thread import LoopThread


def test_a_loop_that_cannot_begin_raises_at_the_start_and_leaves_no_thread_behind() -> None:
    async def begin() -> None:
        raise OSError("no service")

    thread = LoopThread()
    with pytest.raises(OSError, match="no service"):
        thread.start(begin)

    thread.join(5)
    assert not thread.is_alive
