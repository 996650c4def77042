"""Checks whether this version can read the jobs that workers of other versions left in a queue.

Each queue notes the newest layout of records that its workers write. The check needs one look at the start of a
worker: while it runs, the moves leave a record alone that they cannot read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.broker.keys import LAYOUT, Keys
from worker.broker.refusals import Unfit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

#: Notes a layout unless a newer one is noted. A full server lets it pass, as it does the moves.
_NOTE = """#!lua flags=allow-oom
local noted = redis.pcall('HGET', KEYS[1], 'layout')
if not noted or (type(noted) == 'string' and tonumber(string.match(noted, '^%d+') or 0) <= tonumber(ARGV[1])) then
  redis.pcall('HSET', KEYS[1], 'layout', ARGV[1] .. ' ' .. ARGV[2])
end
return 1"""


def newer_layout(client: Redis, queues: Sequence[str], version: str) -> Unfit | None:
    """Return the problem if one of the queues has jobs that only a newer version can read.

    Args:
        client: a client of the server.
        queues: the queues to look at.
        version: of this program, for the sentence.

    Raises:
        RedisError: the server does not answer, or refuses.
    """
    for queue in queues:
        noted: Any = client.hget(Keys(queue).maintenance, "layout")
        number, _, writer = (noted or b"").decode("utf-8", "replace").partition(" ")
        if number.isdecimal() and int(number) > LAYOUT:
            return Unfit(
                f"Jobs on the queue {queue} were written by lock-worker {writer or 'of a newer version'} in layout "
                f"{number}, and this is lock-worker {version}, which reads layout {LAYOUT}.",
                f"Start lock-worker {writer or 'in the newer version'} again; docs/upgrading.md tells how to go back.",
            )
    return None


def note_layout(client: Redis, queues: Sequence[str], version: str) -> None:
    """Note in each queue that workers of this version write to it; a newer note stays.

    Raises:
        RedisError: the server does not answer, or refuses scripts.
    """
    for queue in queues:
        client.eval(_NOTE, 1, Keys(queue).maintenance, LAYOUT, version)
