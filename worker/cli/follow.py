"""Follows the results stream from a place on: not the channel of the same name, which forgets who was away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

_FROM_START = "0-0"
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the stream: its id, and the event's bytes (empty: somebody else wrote something else)."""

    id: str
    event: bytes


class Follower:
    """A place in a stream, which moves on with what is read.

    Args:
        client: a client that does not repeat commands by itself.
        stream: the stream's key.
        last: how many of the newest events to begin with; None: with the first that is there.
    """

    def __init__(self, client: Redis, stream: str, *, last: int | None) -> None:
        self._client = client
        self._stream = stream
        self._after = _FROM_START if last is None else self._before_the_newest(last)

    def wait(self, seconds: float) -> list[Entry]:
        """What came since; waits up to ``seconds`` for the first of it. May be called again when it raised."""
        block_ms = max(1, round(seconds * 1000))
        answer: Any = self._client.xread({self._stream: self._after}, count=_AT_ONCE, block=block_ms)
        entries = [Entry(id_.decode(), fields.get(b"event", b"")) for _, found in answer for id_, fields in found]
        if entries:
            self._after = entries[-1].id
        return entries

    def _before_the_newest(self, count: int) -> str:
        """The place before the newest ``count`` entries."""
        newest: Any = self._client.xrevrange(self._stream, count=count + 1)
        return newest[count][0].decode() if len(newest) > count else _FROM_START
