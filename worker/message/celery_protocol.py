"""Parses the bytes of a queue message into a :class:`Message`, or an :class:`UndecodableMessage` that says why not.

:func:`parse` returns for any bytes. It is used instead of Celery and kombu, because these end the worker, lose the
message or log its body if they cannot read it. It knows Celery's formats (protocol 2, protocol 1, and both mixed) and
kombu's (base64, compression), and accepts what clients in other languages leave out. It never unpickles and never
decompresses beyond a limit, and its errors quote only names and option values. It runs on the asyncio loop, which also
renews the leases, so its time is bounded: if a message holds too many values, it reads enough to name the fault.

The job's own rules check the arguments. Celery's options that have no effect here are only listed.
"""

from __future__ import annotations

import binascii
import difflib
import hashlib
import json
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks import message_options, trace
from tasks.celery_json import bytes_text
from tasks.json_size import holds_more_values, read_loosely
from tasks.message import Message, UndecodableMessage
from tasks.outcome import Problem, ProblemType
from tasks.redaction import describe, shorten
from tasks.strict_json import NotStrictError, loads
from worker.broker.move_limits import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


_MAX_LEVELS = 32 + 4
"""The levels of a job's field, and those of the message, body, argument list and job object around it."""

MAX_VALUES = 50_000
"""The most values in a message, and in its body: more than the longest chain or chord that fits into a message, and ten
times those of the largest job. Reading so many takes ten to twenty milliseconds."""

_CONTENT_TYPES = {"application/json", "json"}
CONTENT_ENCODINGS = {
    # kombu ignores it if the content type is JSON: the body is UTF-8, and body_encoding and compression say how it is
    # packed. Clients write here how they sent the bytes. Names of other character sets are missing on purpose.
    "utf-8", "utf8", "utf_8", "us-ascii", "ascii", "binary", "ascii-8bit", "8bit", "7bit", "base64",
    "identity", "gzip", "zlib", "deflate",
}  # fmt: skip
_PLAIN_BODY_ENCODINGS = {"utf-8", "utf8", "plain"}
_COMPRESSIONS = {
    # kombu labels zlib's format "application/x-gzip", and other clients use the right labels. zlib detects the format.
    "application/x-gzip", "application/gzip", "gzip", "application/x-zlib", "application/zlib", "zlib",
}  # fmt: skip
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS

_SIMILAR_NAME = 0.7
_COMPARED_CHARACTERS = 64


@dataclass(slots=True)
class _Understood:
    """What was understood of a message so far; a rejection can still report it."""

    id: str | None = None
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    replay_of: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    unchecked: Problem | None = None


@dataclass(slots=True)
class _Call:
    """The part of a message that protocols 1 and 2 put into different places.

    Attributes:
        options: the object with the task's name, id, eta and expires.
        args: as sent, of whatever type.
        kwargs: as sent, of whatever type.
        embed: the object with callbacks, errbacks, chain and chord.
    """

    options: Mapping[str, Any]
    args: Any = None
    kwargs: Any = None
    embed: Mapping[str, Any] = field(default_factory=dict)


class _InvalidMessageError(Exception):
    """The message is invalid; ``problem`` says why."""

    def __init__(self, detail: str, problem_type: ProblemType = ProblemType.UNDECODABLE) -> None:
        super().__init__(detail)
        self.problem = Problem(problem_type, detail)


class _NotAMessageError(Exception):
    """The entry of the queue is no Celery message; the text says what it is instead."""


def parse(raw: bytes, *, now: datetime, task_name: str, true_size: int | None = None) -> Message | UndecodableMessage:
    """Parse a queue message; never raises.

    Args:
        raw: the message as it was in the queue, or the beginning of one that is too large.
        now: the present time, to find an eta that is too far away.
        task_name: the name of the only task.
        true_size: the size of the whole message if ``raw`` is only its beginning.
    """
    understood = _Understood()
    try:
        return _parse(raw, understood, now=now, task_name=task_name, true_size=true_size)
    except _NotAMessageError as no_message:
        problem = Problem(ProblemType.UNDECODABLE, f"{no_message} {_what_to_send(task_name)}")
    except _InvalidMessageError as unusable:
        problem = unusable.problem
    return UndecodableMessage(
        id=understood.id or derived_id(raw),
        has_own_id=understood.id is not None,
        problem=problem,
        args=understood.args,
        kwargs=understood.kwargs,
        replay_of=understood.replay_of,
        traceparent=understood.traceparent,
        tracestate=understood.tracestate,
        unchecked=understood.unchecked,
    )


def _parse(
    raw: bytes, understood: _Understood, *, now: datetime, task_name: str, true_size: int | None
) -> Message | UndecodableMessage:
    envelope = _envelope(raw, len(raw) if true_size is None else true_size, understood)
    headers = _object(envelope, "headers")
    properties = _object(envelope, "properties")
    # A body that cannot be read may still belong to a job with an id.
    understood.id = message_options.usable_id(headers.get("id"))
    understood.replay_of = message_options.replay_of(headers.get("replay_of"))
    understood.traceparent, understood.tracestate = trace.read(headers)
    if envelope.get("body") is None:
        if "conversation_id" not in envelope:
            raise _NotAMessageError("The message has no body.")
        understood.kwargs = envelope
        raise _NotAMessageError("The message has no body, but a job's fields in its place.")

    call = _call(_body(envelope, headers, properties, understood), headers)
    own_id = understood.id = message_options.usable_id(call.options.get("id"))
    understood.args = _list(call.args)
    understood.kwargs = _mapping(call.kwargs)
    _check_task(call.options.get("task"), task_name)
    if own_id is None and call.options.get("id") is not None:
        raise _InvalidMessageError(message_options.unusable_id(call.options["id"]), ProblemType.INVALID_JOB)
    args, kwargs = _checked_arguments(call, understood)
    naive_times: list[str] = []
    not_before, expires_at = _times(call.options, now, naive_times)
    return Message(
        id=own_id or derived_id(raw),
        has_own_id=own_id is not None,
        args=args,
        kwargs=kwargs,
        not_before=not_before,
        expires_at=expires_at,
        traceparent=understood.traceparent,
        replay_of=understood.replay_of,
        ignored=_ignored(call, headers, properties),
        tracestate=understood.tracestate,
        naive_times=tuple(naive_times),
        unchecked=understood.unchecked,
    )


def _envelope(raw: bytes, size: int, understood: _Understood) -> Mapping[str, Any]:
    if size > MAX_MESSAGE_BYTES:
        raise _InvalidMessageError(
            f"The message has {size:,} bytes and was not read; send at most {MAX_MESSAGE_BYTES:,}."
        )
    try:
        envelope = _json(raw, "The message", understood)
    except _InvalidMessageError as unusable:
        if raw.lstrip().startswith(b"{"):
            raise
        raise _NotAMessageError(unusable.problem.detail) from None
    if not isinstance(envelope, dict):
        raise _NotAMessageError(f"The message is {describe(envelope)}; send a Celery message, which is a JSON object.")
    return envelope


def _what_to_send(task_name: str) -> str:
    example = {
        "headers": {"task": task_name, "id": "job-1"},
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": {"body_encoding": "utf-8"},
        "body": '[[],{"conversation_id":"c-42"},{}]',
    }
    return (
        "Send jobs with a Celery client or `lock-worker enqueue`, or push messages such as "
        f"{json.dumps(example, separators=(',', ':'))}"
    )


def _json(data: bytes, name: str, understood: _Understood) -> Any:
    try:
        if not holds_more_values(data, MAX_VALUES):
            return loads(data, max_levels=_MAX_LEVELS, keep_digits=True)
        detail = f"{name} holds more than {MAX_VALUES:,} values; send the job's fields alone."
        understood.unchecked = Problem(ProblemType.UNDECODABLE, detail)
        return read_loosely(data, max_containers=MAX_VALUES)
    except NotStrictError as reason:
        raise _InvalidMessageError(f"{name} {reason}.") from None
    except ValueError:
        raise _InvalidMessageError(detail) from None


def _object(envelope: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = _mapping(envelope.get(name))
    if value is None:
        raise _InvalidMessageError(f"{name}: must be an object, and is {describe(envelope[name])}.")
    return value


def _mapping(value: Any) -> Mapping[str, Any] | None:
    """Return the object; PHP writes an empty one as ``[]``. None: the value is no object."""
    if isinstance(value, dict):
        return value
    return {} if value is None or value == [] else None


def _list(value: Any) -> Sequence[Any] | None:
    if isinstance(value, list):
        return value
    return [] if value is None or value == {} else None


# --- the body ----------------------------------------------------------------------------------------------------


def _body(
    envelope: Mapping[str, Any], headers: Mapping[str, Any], properties: Mapping[str, Any], understood: _Understood
) -> Any:
    content_type = _word(envelope, "content-type").partition(";")[0].rstrip()
    if content_type and content_type not in _CONTENT_TYPES:
        raise _InvalidMessageError(
            f"content-type: must be application/json, and is {shorten(content_type)}; nothing else is ever read."
        )
    encoding = _word(envelope, "content-encoding")
    if encoding and encoding not in CONTENT_ENCODINGS:
        raise _InvalidMessageError(
            f"content-encoding: must be utf-8 (or us-ascii, binary, base64), and is {shorten(encoding)}."
        )
    compression = _word(headers, "compression")
    if compression and compression not in _COMPRESSIONS:
        raise _InvalidMessageError(f"headers.compression: must be gzip, zlib or none, and is {shorten(compression)}.")

    body, body_encoding = envelope["body"], _word(properties, "body_encoding")
    if (text := bytes_text(body)) is not None:
        # kombu's form of bytes: a compressed body of a producer whose body_encoding is not base64.
        data = _from_base64(text[0]) if text[1] else text[0].encode()
    elif isinstance(body, list | dict):
        return body  # the client did not encode the body as a string
    elif isinstance(body, str):
        data = _bytes(body, body_encoding, is_base64=bool(compression) or encoding == "base64")
    else:
        raise _InvalidMessageError(f"body: must be a string, and is {describe(body)}.")
    if compression:
        data = _inflated(data)
    return _json(data, "The body", understood)


def _word(options: Mapping[str, Any], name: str) -> str:
    value = options.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _InvalidMessageError(f"{name}: must be a string, and is {describe(value)}.")
    return value.strip().lower()


def _bytes(body: str, encoding: str, *, is_base64: bool) -> bytes:
    """Return the body's bytes by its encoding.

    ``is_base64``: another option means that a body that is not JSON is base64, such as a compression.
    """
    if encoding and encoding != "base64" and encoding not in _PLAIN_BODY_ENCODINGS:
        raise _InvalidMessageError(
            f"properties.body_encoding: must be base64, utf-8 or none, and is {shorten(encoding)}."
        )
    if encoding != "base64":
        is_plain = encoding and not is_base64
        if is_plain or body.lstrip().startswith(("[", "{")):
            return body.encode()
    return _from_base64(body)


def _from_base64(body: str) -> bytes:
    try:
        return binascii.a2b_base64(body, strict_mode=True)
    except ValueError:
        pass
    try:
        # Some clients break base64 into lines.
        return binascii.a2b_base64(body.encode().translate(None, string.whitespace.encode()), strict_mode=True)
    except ValueError:
        raise _InvalidMessageError(
            "body: is not base64; encode it, or say in properties.body_encoding that it is utf-8."
        ) from None


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=_ZLIB_OR_GZIP)
    try:
        inflated = inflater.decompress(data, MAX_MESSAGE_BYTES + 1)
    except zlib.error:
        raise _InvalidMessageError("body: is not compressed as headers.compression says.") from None
    if len(inflated) > MAX_MESSAGE_BYTES:
        raise _InvalidMessageError(f"body: has more than {MAX_MESSAGE_BYTES:,} bytes once decompressed; send less.")
    if not inflater.eof or inflater.unused_data:
        raise _InvalidMessageError("body: the compressed data is cut off, or goes on after its end; send exactly one.")
    return inflated


def _call(body: Any, headers: Mapping[str, Any]) -> _Call:
    has_headers = headers.get("task") is not None
    match body:
        case dict():
            # Protocol 1. With the task's name in the headers too it is Celery's mix of both protocols; then the headers
            # win.
            return _Call(
                options={**body, **headers} if has_headers else body,
                args=body.get("args"),
                kwargs=body.get("kwargs"),
                embed=body,
            )
        case [args, kwargs, embed]:
            return _Call(options=headers, args=args, kwargs=kwargs, embed=embed if isinstance(embed, dict) else {})
        case [args, kwargs]:
            return _Call(options=headers, args=args, kwargs=kwargs)
        case [args]:
            return _Call(options=headers, args=args)
        case []:
            return _Call(options=headers)
        case _:
            raise _InvalidMessageError(
                f"The body must be [args, kwargs, options] or an object, and is {describe(body)}."
            )


# --- the options beside the arguments ----------------------------------------------------------------------------


def derived_id(raw: bytes) -> str:
    """Return an id for a message without one.

    Messages with equal bytes get ids with the same first part; the rest is random, so that no two ids are the same.
    """
    return f"anonymous-{hashlib.blake2b(raw, digest_size=8).hexdigest()}-{secrets.token_hex(8)}"


def _check_task(name: Any, task_name: str) -> None:
    if name == task_name:
        return
    if isinstance(name, str) and difflib.get_close_matches(
        name[:_COMPARED_CHARACTERS], [task_name], cutoff=_SIMILAR_NAME
    ):
        detail = f"task: there is no task {shorten(name)}; did you mean {task_name}?"
    else:
        detail = f"task: must be {task_name}, and is {shorten(name)}."
    raise _InvalidMessageError(detail, ProblemType.UNKNOWN_TASK)


def _checked_arguments(call: _Call, understood: _Understood) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments that were understood; raise if one of the two was not."""
    if understood.args is None:
        raise _InvalidMessageError(f"args: must be a list, and is {describe(call.args)}.", ProblemType.INVALID_JOB)
    if understood.kwargs is None:
        detail = f"kwargs: must be an object, and is {describe(call.kwargs)}."
        raise _InvalidMessageError(detail, ProblemType.INVALID_JOB)
    return understood.args, understood.kwargs


def _times(
    options: Mapping[str, Any], now: datetime, naive_times: list[str]
) -> tuple[datetime | None, datetime | None]:
    """Return ``eta`` and ``expires``; add the name of each that has no UTC offset to ``naive_times``."""
    try:
        eta, is_eta_naive = message_options.not_before(options.get("eta"), now)
        expires, is_expires_naive = message_options.parse_time("expires", options.get("expires"))
    except ValueError as reason:
        raise _InvalidMessageError(str(reason), ProblemType.INVALID_JOB) from None
    naive_times += ["eta"] * is_eta_naive + ["expires"] * is_expires_naive
    return eta, expires


def _ignored(call: _Call, headers: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which of ``message_options.IGNORED`` the message has."""
    embed, options = call.embed, call.options
    timelimit = options.get("timelimit")
    asked = {
        "link": embed.get("callbacks"),
        "link_error": embed.get("errbacks"),
        "chain": embed.get("chain"),
        "chord": embed.get("chord"),
        "timelimit": any(timelimit) if isinstance(timelimit, list) else timelimit,
        # Celery sets it in every message. Only a producer that ignores the result does not wait for one.
        "reply_to": properties.get("reply_to") and options.get("ignore_result") is not True,
        "stamps": headers.get("stamped_headers") or headers.get("stamps"),
    }
    return tuple(name for name in message_options.IGNORED if asked[name])
