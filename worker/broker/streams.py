"""Reads the state of streams, of their consumer groups and of the server's memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import RedisError, ResponseError

from worker.broker.keys import ledger_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.broker.script_calls import Command

#: An entry's id: a time in milliseconds and a sequence number.
EntryId: TypeAlias = tuple[int, int]

#: From this share of its bounds on, a stream counts as full: each further event trims it.
FULL = 0.9
#: A group that has this share of a full stream unread is close to losing events.
MUCH_UNREAD = 0.8
_NO_ENTRY: EntryId = (0, 0)
#: Redis's answer if the stream does not exist yet.
_NO_STREAM = "no such key"
_ANSWERS_OF_A_STREAM = 3
_MEMORY: Command = ["INFO", "memory"]


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group, as Redis reports it.

    Attributes:
        name: its name, given by the consumer's operator.
        last_delivered: the newest event delivered to it.
        pending: the events delivered to it and not acknowledged.
        lag: the events not delivered to it yet; None: Redis does not know. Older servers count events that were trimmed
            before the group read them as not delivered, for ever.
    """

    name: str
    last_delivered: EntryId
    lag: int | None
    pending: int


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of events.

    Attributes:
        length: its events.
        gone: former events, which were trimmed or deleted.
        first: its oldest event; None: it has none.
        last: the newest event it ever had.
        held_bytes: the memory it takes, approximately.
    """

    length: int
    gone: int
    first: EntryId | None
    last: EntryId
    groups: tuple[Group, ...]
    held_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The server's memory in bytes; a ``limit`` of 0 means none."""

    used: int
    limit: int


def unread(group: Group, stream: Stream, miscounted: int = 0) -> int:
    """Return how many events in the stream were not delivered to a group yet.

    Args:
        group: the group.
        stream: the stream that it reads.
        miscounted: by how much Redis counts the group's lag too high.
    """
    if stream.first is None or group.last_delivered >= stream.last:
        return 0
    if group.last_delivered < stream.first:
        return stream.length
    if group.lag is None:
        return _estimate(group, stream)
    return min(max(1, group.lag - miscounted), stream.length)


def _estimate(group: Group, stream: Stream) -> int:
    """Estimate the unread events where Redis does not know them, after some were deleted; assumes a steady rate."""
    first = stream.first or stream.last
    share = (stream.last[0] - group.last_delivered[0]) / max(1, stream.last[0] - first[0])
    return min(max(1, round(stream.length * share)), stream.length)


def stream_commands(streams: Sequence[str]) -> list[Command]:
    """Return the commands that read some streams and the server's memory."""
    return [command for name in streams for command in _of_a_stream(name)] + [_MEMORY]


def parse_streams(answers: Sequence[Any]) -> tuple[list[Stream], Memory]:
    """Return the streams and the memory that the answers to :func:`stream_commands` tell, errors among them.

    A stream that does not exist is empty. If the server forbids ``INFO``, the memory is unknown: 0.

    Raises:
        RedisError: the server refused something else.
    """
    of_streams, memory = [None if _is_missing(answer) else answer for answer in answers[:-1]], answers[-1]
    refusal = next((answer for answer in of_streams if isinstance(answer, RedisError)), None)
    if refusal is not None:
        raise refusal
    return (
        [
            _stream(*of_streams[at : at + _ANSWERS_OF_A_STREAM])
            for at in range(0, len(of_streams), _ANSWERS_OF_A_STREAM)
        ],
        Memory(0, 0) if isinstance(memory, RedisError) else _memory(memory),
    )


def _of_a_stream(name: str) -> list[Command]:
    return [["XINFO", "STREAM", name], ["XINFO", "GROUPS", name], ["GET", ledger_of(name)]]


def _is_missing(answer: object) -> bool:
    return isinstance(answer, ResponseError) and _NO_STREAM in str(answer)


def _stream(info: list[Any] | None, groups: list[list[Any]] | None, ledger: bytes | None) -> Stream:
    if info is None:
        return Stream(length=0, gone=0, first=None, last=_NO_ENTRY, groups=(), held_bytes=0)
    fields = _fields(info)
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


def _memory(info: bytes | Mapping[str, Any]) -> Memory:
    """Read the answer of ``INFO memory``, parsed (by redis-py's client) or not."""
    if isinstance(info, bytes):
        info = dict(re.findall(r"^(\w+):(\d+)\r?$", info.decode("utf-8", "replace"), re.MULTILINE))
    # The server compares its used memory with its limit without the buffers of replicas and of the append-only file.
    used = int(info.get("used_memory", 0)) - int(info.get("mem_not_counted_for_evict", 0))
    return Memory(used=used, limit=int(info.get("maxmemory", 0)))
