"""Reads the jobs of a queue wherever they are in Redis, in pages, while workers and producers move them.

A job that stays where it is, or that moves in the order of these places, is not missed; one that moves while its place
is read may come twice. A page has few entries, because each may have a MiB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis import Redis

    from worker.broker.keys import Keys

Place = Literal["ready", "delayed", "held", "in flight"]
PLACES: tuple[Place, ...] = ("ready", "delayed", "held", "in flight")
#: Entries read at once.
PAGE = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """A job in Redis.

    Attributes:
        raw: its message, or the beginning of one that is too large.
        size: the size of the whole message in bytes.
        wake: where it waits (``delayed`` or ``held``), its member there, and its ref; None: it is ready or in flight.
        ref: the name of its record; empty: no worker has taken it yet.
    """

    raw: bytes = field(repr=False)
    size: int
    wake: tuple[str, str, str] | None = None
    ref: str = ""


def pages(client: Redis, keys: Keys, places: Sequence[Place] = PLACES) -> Iterator[tuple[Place, list[Entry]]]:
    """Yield the jobs of a queue, place by place.

    In flight, delayed and held jobs come first, then new ones, then those that are ready again: in that order a job
    moves while a cancel is in force, which keeps it from going round.
    """
    indexes: tuple[tuple[Place, str], ...] = (
        ("in flight", keys.leases), ("delayed", keys.delayed), ("held", keys.held)
    )  # fmt: skip
    for place, name in indexes:
        if place in places:
            for members in _members(client, name):
                yield place, _records(client, keys, [_waiting(place, member) for member in members])
    if "ready" in places:
        for entries in _ready(client, keys):
            yield "ready", entries


def _ready(client: Redis, keys: Keys) -> Iterator[list[Entry]]:
    for name in (*keys.priority_lists, keys.arrived):
        for raws in list_pages(_from_head(client, name)):
            yield [Entry(raw, len(raw)) for raw in raws]
    for name in (keys.requeued, keys.retries, keys.suspects):
        for refs in list_pages(_from_tail(client, name)):
            yield _records(client, keys, [("", ref, ref) for ref in map(_text, refs)])


def _waiting(place: Place, member: str) -> tuple[str, str, str]:
    """Return where a job waits, so that it can be woken (empty: it does not wait), its member there, and its ref."""
    if place == "held":
        return "held", member, member.partition(":")[2]
    return "delayed" if place == "delayed" else "", member, member


def count_jobs(client: Redis, keys: Keys, places: Sequence[Place] = PLACES) -> int:
    """Return how many jobs a queue has in these places."""
    zsets: dict[Place, str] = {"in flight": keys.leases, "delayed": keys.delayed, "held": keys.held}
    with client.pipeline(transaction=False) as look:
        for place in places:
            for name in keys.ready if place == "ready" else ():
                look.llen(name)
            if place in zsets:
                look.zcard(zsets[place])
        return sum(look.execute())


def list_pages(read: Callable[[int, int], list[bytes]]) -> Iterator[list[bytes]]:
    """Yield the entries of a list that may move while it is read.

    Args:
        read: returns the entries from one place to before another one, counted from the end where reading begins.
    """
    at, last = 0, None
    while True:
        # The last entry of the page before comes again: where it stands now shows how far the list has moved.
        begin = at if last is None else at - 1
        page = read(begin, begin + PAGE)
        is_end = len(page) < PAGE
        if last is not None and last in page:
            skipped = page.index(last) + 1
            begin, page = begin + skipped, page[skipped:]
        elif last is not None:
            # It was taken, or the list has moved far: what came before it may stand one page nearer now.
            begin = max(0, at - PAGE)
            page = read(begin, at + PAGE)
            is_end = len(page) < at + PAGE - begin
        if page:
            yield page
            at, last = begin + len(page), page[-1]
        if is_end:
            return


def _from_head(client: Redis, name: str) -> Callable[[int, int], list[bytes]]:
    def read(start: int, stop: int) -> list[bytes]:
        found: Any = client.lrange(name, start, stop - 1)
        return list(found)

    return read


def _from_tail(client: Redis, name: str) -> Callable[[int, int], list[bytes]]:
    def read(start: int, stop: int) -> list[bytes]:
        found: Any = client.lrange(name, -stop, -start - 1)
        return list(reversed(found))

    return read


def _members(client: Redis, name: str) -> Iterator[list[str]]:
    """Yield the members of a sorted set. One that is there all the time is not missed."""
    cursor = None
    while cursor != 0:
        answer: Any = client.zscan(name, cursor or 0, count=PAGE)
        cursor, found = answer
        members = [_text(member) for member, _ in found]
        for first in range(0, len(members), PAGE):
            yield members[first : first + PAGE]


def _records(client: Redis, keys: Keys, found: Sequence[tuple[str, str, str]]) -> list[Entry]:
    """Read the messages of jobs that were taken before; those that are gone meanwhile are left out."""
    with client.pipeline(transaction=False) as look:
        for _, _, ref in found:
            look.hmget(f"{keys.record_prefix}{ref}", ["raw", "size"])
        records = look.execute()
    entries = []
    for wake, (raw, size) in zip(found, records, strict=True):
        if raw is not None:
            is_number = size is not None and size.isdigit() and len(size) < 16  # noqa: PLR2004 - as the scripts do
            entries.append(Entry(raw, int(size) if is_number else len(raw), wake if wake[0] else None, ref=wake[2]))
    return entries


def _text(member: bytes) -> str:
    return member.decode(errors="replace")
