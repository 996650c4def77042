"""Asks Redis which of several queues have jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker.records import Backlog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.keys import Keys
    from worker.broker.script_calls import Client


async def backlogs(client: Client, queues: Sequence[Keys]) -> list[Backlog]:
    """Return what each of several queues has. It takes one command if all are idle, and one more write if not.

    Raises what the client raises.
    """
    if not await client.execute_command("EXISTS", *(key for keys in queues for key in (*keys.ready, *keys.under_way))):
        return [Backlog(is_ready=False, is_under_way=False)] * len(queues)
    commands = [["EXISTS", *names] for keys in queues for names in (keys.ready, keys.under_way)]
    answers = await client.send(*commands)
    try:
        exist = [await answers.next() > 0 for _ in commands]
    finally:
        await answers.close()
    return [Backlog(*pair) for pair in zip(exist[::2], exist[1::2], strict=True)]
