"""Checks whether this version can read the jobs that workers of other versions left in a queue.

Each queue notes the newest layout of records that its workers write. A worker looks at its queues when it starts. A
queue that Celery's remote control adds later is not looked at: there the moves alone protect the records, because each
leaves one alone that it cannot read.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from worker.broker import scripts
from worker.broker.keys import LAYOUT, Keys
from worker.broker.redis_problems import Unfit
from worker.broker.refusals import answer_in
from worker.broker.script_calls import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis

    from worker.broker.script_calls import Command


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
        noted: Any = None
        with _whatever_the_key_holds():
            noted = client.hget(Keys(queue).maintenance, "layout")
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
        with _whatever_the_key_holds():
            client.execute_command(*note_layout_command(Keys(queue), version, whole_text=True))  # type: ignore[no-untyped-call]  # redis-py has no types for it


def note_layout_command(keys: Keys, version: str, *, whole_text: bool = False) -> Command:
    """Return the call of ``note_layout.lua``. Its answer is 1 if it is noted, 0 if a newer layout stays noted."""
    return command(scripts.NOTE_LAYOUT, [keys.maintenance, keys.absent], [version], whole_text=whole_text)


@contextmanager
def _whatever_the_key_holds() -> Iterator[None]:
    """Pass over a key that another program overwrote: the moves name it, each time that they meet it."""
    try:
        yield
    except ResponseError as error:
        if answer_in(error).code != "WRONGTYPE":
            raise
