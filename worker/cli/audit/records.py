"""Looks whether each job in an index has its record: the job itself, without which it can have no event.

It goes through the indexes in pages, while jobs move. A job that it finds without a record is looked at again, at one
moment: only one that is still in an index then, without a record, is missing. So it blames no job that ended meanwhile.
One that moves from an index which it has yet to read to one which it has read may be left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from redis import Redis

    from worker.broker.keys import Keys

PAGE = 500
#: Pages of a list overlap, as jobs may leave its middle meanwhile: those that are too old, some tens at a time.
_OVERLAP = 50


@dataclass(slots=True)
class Records:
    """What was found.

    Attributes:
        checked: the jobs that were looked at.
        missing: the refs of those without a record.
    """

    checked: int = 0
    missing: list[str] = field(default_factory=list)


def check_records(client: Redis, keys: Keys) -> Records:
    """Look at each job of a queue that was taken and did not end. It changes nothing.

    Raises:
        RedisError: the server refused, was lost, or took too long.
    """
    found, seen, holds = Records(), set[bytes](), set[bytes]()
    for page in _pages(client, keys, holds):
        new = [ref for ref in dict.fromkeys(page) if ref not in seen]
        seen.update(new)
        lacking = [ref for ref, kind in zip(new, _types(client, keys, new), strict=True) if kind != b"hash"]
        found.missing += [ref.decode(errors="replace") for ref in lacking if _is_missing(client, keys, ref, holds)]
    found.checked = len(seen)
    return found


def _pages(client: Redis, keys: Keys, holds: set[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the refs in all indexes; adds the digests of the holds that jobs are set aside by."""
    for name in (keys.requeued, keys.retries, keys.suspects):
        yield from _pages_of_list(client, name)
    for name in (keys.leases, keys.delayed):
        yield from _pages_of_zset(client, name)
    for page in _pages_of_zset(client, keys.held):
        members = [member.partition(b":") for member in page]
        holds.update(hold for hold, _, _ in members)
        yield [ref for _, _, ref in members]


def _pages_of_list(client: Any, name: str) -> Iterator[Sequence[bytes]]:
    """Yield a list from its tail. Jobs are taken from its head and added at both ends: nothing is skipped by that."""
    last = -1
    while True:
        try:
            page = client.lrange(name, last - PAGE + 1, last)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):  # told by the sum
                return
            raise
        if not page:
            return
        yield page
        last -= PAGE - _OVERLAP


def _pages_of_zset(client: Any, name: str) -> Iterator[Sequence[bytes]]:
    cursor = 0
    while True:
        try:
            cursor, pairs = client.zscan(name, cursor, count=PAGE)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):  # as above
                return
            raise
        yield [ref for ref, _ in pairs]
        if not cursor:
            return


def _types(client: Redis, keys: Keys, refs: Sequence[bytes]) -> list[bytes]:
    pipeline: Any  # redis-py has no types for this
    with client.pipeline(transaction=False) as pipeline:
        for ref in refs:
            pipeline.type(keys.record_prefix.encode() + ref)
        return list(pipeline.execute())


def _is_missing(client: Redis, keys: Keys, ref: bytes, holds: Iterable[bytes]) -> bool:
    """Return True if a job is in an index and has no record, at one moment. ``holds``: the digests of the holds."""
    pipeline: Any  # as above
    with client.pipeline(transaction=True) as pipeline:
        pipeline.type(keys.record_prefix.encode() + ref)
        for name in (keys.requeued, keys.retries, keys.suspects):
            pipeline.lpos(name, ref)
        for name in (keys.leases, keys.delayed):
            pipeline.zscore(name, ref)
        for hold in holds:
            pipeline.zscore(keys.held, hold + b":" + ref)
        kind, *places = pipeline.execute(raise_on_error=False)
    is_somewhere = any(place is not None and not isinstance(place, ResponseError) for place in places)
    return kind != b"hash" and is_somewhere
