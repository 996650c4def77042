"""How a stream and its readers stand, and how full the server is: one write, which changes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import RedisError, ResponseError

from worker.broker.keys import ledger_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis import Redis

    from worker.broker.follow_up import Pipe

#: An entry's id: its time in milliseconds, and a number.
EntryId: TypeAlias = tuple[int, int]

#: A stream is full, and so trimmed with each further event, from this share of its bounds on.
FULL = 0.9
#: A group that was not given this share of a full stream is near to losing events.
MUCH_UNREAD = 0.8
_NOTHING: EntryId = (0, 0)
#: What Redis answers where there is no stream yet.
_NO_STREAM = "no such key"
_ANSWERS_OF_A_STREAM = 3
_MEMORY = ["INFO", "memory"]


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group, as Redis tells of it.

    Attributes:
        name: given by whoever made it.
        last_delivered: the newest event that it was given.
        pending: the events that it was given and has not acknowledged.
        lag: the events that it was not given yet; None: Redis does not know. Older servers count an event that was
            trimmed before the group read it as one that it was not given yet, for ever.
    """

    name: str
    last_delivered: EntryId
    lag: int | None
    pending: int


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of events.

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


def unread(group: Group, stream: Stream, miscounted: int = 0) -> int:
    """The events in the stream that a group was not given yet.

    Args:
        group: it.
        stream: the stream that it reads.
        miscounted: how much too high Redis counts the group's lag.
    """
    if stream.first is None or group.last_delivered >= stream.last:
        return 0
    if group.last_delivered < stream.first:
        return stream.length
    if group.lag is None:
        return _estimate(group, stream)
    return min(max(1, group.lag - miscounted), stream.length)


def _estimate(group: Group, stream: Stream) -> int:
    """The unread events where Redis does not know them, because somebody deleted some: as if they came evenly."""
    first = stream.first or stream.last
    share = (stream.last[0] - group.last_delivered[0]) / max(1, stream.last[0] - first[0])
    return min(max(1, round(stream.length * share)), stream.length)


async def look(pipe: Pipe, stream: str) -> tuple[Stream, Memory]:
    """Read it.

    Raises:
        RedisError: the server refused, was lost, or took too long.
        OSError: there is no connection to be had.
    """
    told, groups, ledger, memory = await _ask(pipe, *_of_a_stream(stream), _MEMORY)
    found = re.findall(r"^(\w+):(\d+)\r?$", memory.decode("utf-8", "replace"), re.MULTILINE)
    return _stream(told, groups, ledger), _memory(dict(found))


def look_now(client: Redis, streams: Sequence[str]) -> tuple[list[Stream], Memory]:
    """Read several streams with a blocking client. Where the server forbids ``INFO``, the memory is unknown: 0.

    Raises:
        RedisError: the server refused something else, was lost, or took too long.
    """
    at_once: Any  # redis-py has no types for what is asked
    with client.pipeline(transaction=False) as at_once:
        for name in streams:
            for command in _of_a_stream(name):
                at_once.execute_command(*command)
        at_once.execute_command(*_MEMORY)
        *answers, memory = at_once.execute(raise_on_error=False)
    found = [None if isinstance(answer, ResponseError) and _is_missing(answer) else answer for answer in answers]
    refusal = next((answer for answer in found if isinstance(answer, RedisError)), None)
    if refusal is not None:
        raise refusal
    return (
        [_stream(*found[at : at + _ANSWERS_OF_A_STREAM]) for at in range(0, len(found), _ANSWERS_OF_A_STREAM)],
        Memory(0, 0) if isinstance(memory, RedisError) else _memory(memory),
    )


def _of_a_stream(name: str) -> list[list[str]]:
    return [["XINFO", "STREAM", name], ["XINFO", "GROUPS", name], ["GET", ledger_of(name)]]


def _is_missing(error: ResponseError) -> bool:
    return _NO_STREAM in str(error)


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
            if not _is_missing(error):
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
        pending=fields[b"pending"],
    )


def _fields(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _id(text: bytes) -> EntryId:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number)


def _memory(found: Mapping[str, Any]) -> Memory:
    # What the server does not count when it compares what it uses with its limit: the buffers of replicas and of the
    # append-only file.
    used = int(found.get("used_memory", 0)) - int(found.get("mem_not_counted_for_evict", 0))
    return Memory(used=used, limit=int(found.get("maxmemory", 0)))
