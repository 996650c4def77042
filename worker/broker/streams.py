"""How the results stream and its readers stand, and how full the server is: one write, which changes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import ResponseError

from worker.broker.keys import ledger_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.follow_up import Pipe

#: An entry's id: its time in milliseconds, and a number.
EntryId: TypeAlias = tuple[int, int]

_NOTHING: EntryId = (0, 0)
#: What Redis answers where there is no stream yet.
_NO_STREAM = "no such key"


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group, as Redis tells of it.

    Attributes:
        name: given by whoever made it.
        last_delivered: the newest event that it was given.
        lag: the events that it was not given yet; None: Redis does not know. Older servers count an event that was
            trimmed before the group read it as one that it was not given yet, for ever.
    """

    name: str
    last_delivered: EntryId
    lag: int | None


@dataclass(frozen=True, slots=True)
class Stream:
    """The results stream.

    Attributes:
        length: events that are there.
        gone: events that were there, and were trimmed or deleted.
        first: the oldest event; None: there is none.
        last: the newest event that ever was.
        held_bytes: the memory it takes, about.
    """

    length: int
    gone: int
    first: EntryId | None
    last: EntryId
    groups: tuple[Group, ...]
    held_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the server, in bytes; ``limit`` 0: there is none."""

    used: int
    limit: int


async def look(pipe: Pipe, stream: str) -> tuple[Stream, Memory]:
    """Read it.

    Raises:
        RedisError: the server refused, was lost, or took too long.
        OSError: there is no connection to be had.
    """
    told, groups, ledger, memory = await _ask(
        pipe,
        ["XINFO", "STREAM", stream],
        ["XINFO", "GROUPS", stream],
        ["GET", ledger_of(stream)],
        ["INFO", "memory"],
    )
    return _stream(told, groups, ledger), _memory(memory)


async def _ask(pipe: Pipe, *commands: Sequence[str]) -> list[Any]:
    """One answer for each command, None where there is no stream."""
    answers = await pipe.send(*commands)
    found: list[Any] = []
    refusal: ResponseError | None = None
    for _ in commands:
        try:
            found.append(await answers.next())
        except ResponseError as error:  # the others are to be read all the same, or the connection is lost
            found.append(None)
            if _NO_STREAM not in str(error):
                refusal = error
    if refusal is not None:
        raise refusal
    return found


def _stream(told: list[Any] | None, groups: list[list[Any]] | None, ledger: bytes | None) -> Stream:
    if told is None:
        return Stream(length=0, gone=0, first=None, last=_NOTHING, groups=(), held_bytes=0)
    fields = _fields(told)
    first = fields[b"first-entry"]
    return Stream(
        length=fields[b"length"],
        gone=fields[b"entries-added"] - fields[b"length"],
        first=_id(first[0]) if first else None,
        last=_id(fields[b"last-generated-id"]),
        groups=tuple(_group(_fields(group)) for group in groups or ()),
        held_bytes=sum(int(part) for part in re.findall(rb"\d{1,15} (\d{1,15})", ledger or b"")),
    )


def _group(fields: dict[bytes, Any]) -> Group:
    return Group(
        name=fields[b"name"].decode("utf-8", "backslashreplace"),
        last_delivered=_id(fields[b"last-delivered-id"]),
        lag=fields[b"lag"],
    )


def _fields(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _id(text: bytes) -> EntryId:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number)


def _memory(info: bytes) -> Memory:
    found = dict(re.findall(r"^(\w+):(\d+)\r?$", info.decode("utf-8", "replace"), re.MULTILINE))
    # What the server does not count when it compares what it uses with its limit: the buffers of replicas and of the
    # append-only file.
    used = int(found.get("used_memory", 0)) - int(found.get("mem_not_counted_for_evict", 0))
    return Memory(used=used, limit=int(found.get("maxmemory", 0)))
