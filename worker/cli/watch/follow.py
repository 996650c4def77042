"""Follows the results stream. It does not use the channel of the same name, which loses events during an outage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.cli.paging import PageSize

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

FROM_START = "0-0"
_MAX_NUMBER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the stream: its id, and the event's bytes (empty: another program wrote another kind of entry)."""

    id: str
    event: bytes


class Follower:
    """A position in a stream, which moves on with each read.

    Args:
        client: a client that does not repeat commands by itself.
        stream: the stream's key.
        after: the id of the entry to begin after.
    """

    def __init__(self, client: Redis, stream: str, *, after: str = FROM_START) -> None:
        self._client = client
        self._stream = stream
        self._after = after
        self._page = PageSize()

    def wait(self, seconds: float) -> list[Entry]:
        """Return the next new entries; waits up to ``seconds`` for the first. It may be called again after an error."""
        block_ms = max(1, round(seconds * 1000))
        answer: Any = self._client.xread({self._stream: self._after}, count=self._page.count, block=block_ms)
        new = [entry for _, entries in answer for entry in entries]
        self._page.saw(fields for _, fields in new)
        if new:
            self._after = new[-1][0].decode()
        return [Entry(name.decode(), fields.get(b"event", b"")) for name, fields in new]

    def disconnect(self) -> None:
        """Close the connection, as a server that became a replica keeps it open. The next wait opens a new one."""
        self._client.close()


def before_the_newest(client: Redis, stream: str, count: int, is_wanted: Callable[[bytes], bool]) -> str:
    """Return the position after which the newest ``count`` wanted events follow, with unwanted ones between them.

    It reads backwards until it has found so many. ``is_wanted`` gets an event's bytes.
    """
    if count == 0:
        newest: Any = client.xrevrange(stream, count=1)
        return str(newest[0][0].decode()) if newest else FROM_START
    page, end = PageSize(), "+"
    while True:
        entries: Any = client.xrevrange(stream, max=end, count=page.count)
        page.saw(fields for _, fields in entries)
        for name, fields in entries:
            end = _before(name.decode())
            count -= is_wanted(fields.get(b"event", b""))
            if count == 0:
                return end
        if not entries:
            return FROM_START


def _before(name: str) -> str:
    """Return the last id that an entry before this one can have."""
    milliseconds, number = map(int, name.split("-"))
    if number:
        return f"{milliseconds}-{number - 1}"
    return f"{milliseconds - 1}-{_MAX_NUMBER}" if milliseconds else FROM_START
