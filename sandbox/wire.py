"""Renders answers and faults for the wire: pure functions from a fault to the steps that play it.

A step is bytes to send, a wait, or the end of the connection; ``sandbox.connection`` carries them out. Steps are made
one by one as they are needed, so an endless drip or an answer of gigabytes needs no memory.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from sandbox.conversation import as_json, conversation, wrong_body
from sandbox.faults import (
    AnyAnswer,
    Drip,
    Drop,
    GarbageStatusLine,
    GzipBomb,
    HugeHeaders,
    Oversized,
    Respond,
    WrongBody,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Wait:
    """Send nothing for a time; zero lets the other connections have their turn."""

    seconds: float


class End(Enum):
    """The end of the connection, orderly (FIN) or not (RST)."""

    CLOSE = "close"
    RESET = "reset"


Step: TypeAlias = bytes | Wait | End

_JSON = "application/json"
_CHUNKED = {"Transfer-Encoding": "chunked"}
_LAST_CHUNK = b"0\r\n\r\n"
_PIECE = b" " * 65_536
_REASONS = {status.value: status.phrase for status in HTTPStatus}


def response(status: int, body: bytes, content_type: str = _JSON, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole response."""
    return _head(status, {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}) + body


def message(status: int, text: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole response that says in JSON what is wrong."""
    return response(status, json.dumps({"message": text}).encode(), headers=headers)


def right_answer(conversation_id: str) -> bytes:
    """Return the documented response: the conversation, locked."""
    return response(200, as_json(conversation(conversation_id)))


def render(fault: AnyAnswer, conversation_id: str) -> Iterable[Step]:  # noqa: PLR0911 - one return for each fault
    """Return the steps that play the fault."""
    match fault:
        case Respond():
            return [_respond(fault, conversation_id)]
        case Drop():
            return _drop(fault, conversation_id)
        case Drip(part="head"):
            return _drip_head(fault, conversation_id)
        case Drip():
            return _drip_body(fault, conversation_id)
        case Oversized():
            return _oversized(fault, conversation_id)
        case GzipBomb():
            return _gzip_bomb(fault, conversation_id)
        case WrongBody():
            return [response(200, wrong_body(fault.what, conversation_id))]
        case GarbageStatusLine():
            _, rest = right_answer(conversation_id).split(b"\r\n", 1)
            return [fault.line.encode() + b"\r\n" + rest, End.CLOSE]
        case HugeHeaders():
            return _huge_headers(fault, conversation_id)


def ending(drop: Drop) -> End:
    """Return how the drop ends the connection."""
    return End.RESET if drop.reset else End.CLOSE


def _respond(fault: Respond, conversation_id: str) -> bytes:
    if fault.body is not None:
        return response(fault.status, fault.body.encode(), fault.content_type, fault.headers)
    if fault.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:  # these have no body by definition
        return _head(fault.status, fault.headers)
    if fault.status < HTTPStatus.MULTIPLE_CHOICES:
        return response(fault.status, as_json(conversation(conversation_id)), fault.content_type, fault.headers)
    return message(fault.status, _REASONS.get(fault.status, "Failed"), fault.headers)


def _drop(fault: Drop, conversation_id: str) -> Iterator[Step]:
    answer = right_answer(conversation_id)
    head_length = answer.index(b"\r\n\r\n") + 4
    match fault.at:
        case "headers":
            yield answer[: head_length // 2]
        case "body":
            yield answer[: (head_length + len(answer)) // 2]
        case "after_answer":
            yield answer
        case "request" | "accept":
            pass
    yield ending(fault)


def _drip_head(fault: Drip, conversation_id: str) -> Iterator[Step]:
    status_line, rest = right_answer(conversation_id).split(b"\r\n", 1)
    yield status_line + b"\r\nX-Drip: "
    yield from _drops(fault, b"a")
    yield b"\r\n" + rest


def _drip_body(fault: Drip, conversation_id: str) -> Iterator[Step]:
    yield _head(200, {"Content-Type": _JSON, **_CHUNKED})
    yield from _drops(fault, _chunk(b" "))
    yield _chunk(as_json(conversation(conversation_id))) + _LAST_CHUNK


def _drops(fault: Drip, drop: bytes) -> Iterator[Step]:
    sent = 0
    while fault.size is None or sent < fault.size:
        yield Wait(fault.every_ms / 1000)
        yield drop
        sent += 1


def _oversized(fault: Oversized, conversation_id: str) -> Iterator[Step]:
    if fault.chunked:
        yield _head(200, {"Content-Type": _JSON, **_CHUNKED})
        for piece in _padded(conversation_id, fault.size):
            yield _chunk(piece)
            yield Wait(0)
        yield _LAST_CHUNK
    else:
        length = fault.size + sum(len(piece) for piece in _padded(conversation_id, 0))
        yield _head(200, {"Content-Type": _JSON, "Content-Length": str(length)})
        for piece in _padded(conversation_id, fault.size):
            yield piece
            yield Wait(0)


def _gzip_bomb(fault: GzipBomb, conversation_id: str) -> Iterator[Step]:
    yield _head(200, {"Content-Type": _JSON, "Content-Encoding": "gzip", **_CHUNKED})
    gzip = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)
    for piece in _padded(conversation_id, fault.size):
        packed = gzip.compress(piece)
        if packed:
            yield _chunk(packed)
        yield Wait(0)
    yield _chunk(gzip.flush()) + _LAST_CHUNK


def _huge_headers(fault: HugeHeaders, conversation_id: str) -> Iterator[Step]:
    status_line, rest = right_answer(conversation_id).split(b"\r\n", 1)
    yield status_line + b"\r\nX-Huge: "
    for length in _pieces(fault.size):
        yield b"a" * length
        yield Wait(0)
    yield b"\r\n" + rest


def _padded(conversation_id: str, size: int) -> Iterator[bytes]:
    """Yield the conversation with a further field of ``size`` blanks, in pieces."""
    yield as_json(conversation(conversation_id))[:-1] + b',"padding":"'
    for length in _pieces(size):
        yield _PIECE[:length]
    yield b'"}'


def _pieces(size: int) -> Iterator[int]:
    for start in range(0, size, len(_PIECE)):
        yield min(len(_PIECE), size - start)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n{lines}\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
