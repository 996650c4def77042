"""Validates a job: the fields that a producer may send, and how they are read from a message's arguments.

:class:`Job` is the published schema of a job's fields. :func:`parse` returns for any message: an :class:`Accepted` job,
or a :class:`Rejection` that names the wrong fields (ten at most) and the fix for each, and quotes no value. It guesses
nothing. It converts only an integer conversation id, and UUIDs and datetimes as Celery's JSON writes them. It rejects
unknown fields, because ``dryrun`` must not lock by accident. Only the API knows if the conversation exists.

It runs on the asyncio loop, which also renews the leases, so its time is bounded even for a megabyte of junk.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
import uuid
from datetime import datetime  # noqa: TC003 - pydantic reads the annotation
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticSerializationError, to_json

from tasks import rfc3339, verbatim
from tasks.celery_json import as_text, python_type
from tasks.event import MAX_RECEIVED_BYTES
from tasks.message import Accepted, Message, Rejection
from tasks.outcome import Problem, ProblemType
from tasks.redaction import describe, shorten
from tasks.strict_json import NotStrictError, check_levels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tasks.message import ParsedJob, UndecodableMessage

MAX_METADATA_BYTES = 8 * 1024
MAX_LEVELS = 32

IDEMPOTENCY_NAMESPACE = uuid.UUID("56e3075f-7a27-5809-ae23-6e70779160f2")
"""The UUIDv5 of the URL ``https://api.managem.co.uk/conversations``; it must never change."""

_MAX_CONVERSATION_ID = 256
_MAX_POLICIES = 20
_NAMED_FIELDS = 10
_MAX_VALIDATED_FIELDS = 32
_COMPARED_CHARACTERS = 36
"""Longer names are not compared with the fields', of which the longest has 15 characters."""
_COMPARED_NAMES = 3
"""At most this many names of one message are compared with the fields' for misspellings, which is the slowest step."""
_PYDANTIC_PREFIX = "Value error, "  # pydantic puts this before the texts of the checks below
_VISIBLE_ASCII = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def _integer_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _path_segment(value: str) -> str:
    if value in {".", ".."}:
        raise ValueError("is no path segment of its own")
    # A path may hold no character of category Cc. Nearly all ids are ASCII, and printable ASCII has none.
    if not (value.isascii() and value.isprintable()) and any(unicodedata.category(char) == "Cc" for char in value):
        raise ValueError("holds a control character")
    return value


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("is no string")  # noqa: TRY004 - pydantic reads a ValueError
    return rfc3339.parse(value)


def _false_if_null(value: Any) -> Any:
    return False if value is None else value


def _json_bytes(value: Mapping[str, Any], bound: int) -> int:
    """Return the size of an object as JSON; approximate if it is beyond the bound."""
    size = len(to_json(value))
    if size <= bound and verbatim.are_in(value.values()):  # a number with many digits is short as a double
        size = len(verbatim.encode(value))
    return size


def _small(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        size = _json_bytes(value, MAX_METADATA_BYTES)
        if size <= MAX_METADATA_BYTES:  # else it is refused anyway
            check_levels(value, MAX_LEVELS)
    except NotStrictError:
        raise ValueError("is nested too deep") from None
    except (PydanticSerializationError, ValueError, RecursionError):
        raise ValueError("cannot be written as JSON") from None
    if size > MAX_METADATA_BYTES:
        raise ValueError("is too large")
    return value


ConversationId = Annotated[
    str,
    Field(min_length=1, max_length=_MAX_CONVERSATION_ID),
    BeforeValidator(_integer_as_text),
    AfterValidator(_path_segment),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": _MAX_CONVERSATION_ID,
                    # A negated pattern, because `$` also matches before a final line break, in Python for example.
                    "not": {"anyOf": [{"enum": [".", ".."]}, {"pattern": r"[\u0000-\u001f\u007f-\u009f]"}]},
                },
                {"type": "integer"},
            ]
        }
    ),
]
_TIME_SCHEMA: dict[str, Any] = {
    "type": "string",
    "format": "date-time",
    "maxLength": rfc3339.MAX_CHARACTERS,
    "pattern": rfc3339.PATTERN,
}
ShortText = Annotated[str, Field(max_length=128)]


class Job(BaseModel):
    """What a producer asks for. Null means absent; no other field is known."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    conversation_id: ConversationId = Field(
        description="The conversation to lock: one segment of a path. An integer is taken as its decimal string."
    )
    reason: Annotated[str, Field(max_length=1000)] | None = Field(None, description="Why, for people.")
    rule_id: ShortText | None = Field(None, description="The moderation rule that fired.")
    policies: Annotated[list[ShortText], Field(max_length=_MAX_POLICIES)] | None = Field(
        None, description="The policies behind the rule."
    )
    actor: ShortText | None = Field(None, description="The service or (opaque) moderator that asked.")
    correlation_id: ShortText | None = Field(None, description="The producer's own key.")
    requested_at: Annotated[
        datetime | None,
        BeforeValidator(_time),
        WithJsonSchema({"anyOf": [_TIME_SCHEMA, {"type": "null"}]}),
    ] = Field(None, description="When the rule fired (RFC 3339).")
    dry_run: Annotated[
        bool, BeforeValidator(_false_if_null), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
    ] = Field(default=False, description="Do everything but the call; the outcome is `would_lock`.")
    metadata: Annotated[dict[str, Any] | None, BeforeValidator(_small)] = Field(
        None, description="Opaque, given back unchanged; at most 8 KiB as JSON, at most 32 levels."
    )


# What each field must be, in the words of a rejection.
_REQUIREMENTS = {
    "conversation_id": f"must be a string of 1 to {_MAX_CONVERSATION_ID} characters (or an integer) without control "
    "characters, and neither . nor ..",
    "reason": "must be a string of at most 1,000 characters",
    "rule_id": "must be a string of at most 128 characters",
    "policies": f"must be a list of at most {_MAX_POLICIES} strings of at most 128 characters each",
    "actor": "must be a string of at most 128 characters",
    "correlation_id": "must be a string of at most 128 characters",
    "requested_at": "must be a string with an RFC 3339 time and offset, such as 2026-11-22T15:04:05Z",
    "dry_run": "must be true or false",
    "metadata": f"must be an object of at most {MAX_METADATA_BYTES:,} bytes as JSON and at most {MAX_LEVELS} levels",
}

_SEPARATORS = re.compile(r"[\W_]+")
_NAMES = {_SEPARATORS.sub("", name): name for name in _REQUIREMENTS}
"""The fields by their names without separators, to recognise ``conversationId`` and ``conversation-id``."""
_TEXTS = ("conversation_id", "reason", "rule_id", "actor", "correlation_id", "requested_at")

_ARGUMENTS = "give the fields as keyword arguments, or as one object, or give the conversation id alone"


def parse(message: Message | UndecodableMessage) -> ParsedJob:
    """Read a message as a job; never raises."""
    if not isinstance(message, Message):
        return _rejection(message, message.problem)
    try:
        job, fields = _validated(_fields(message.args, message.kwargs))
    except ValueError as reason:
        return _rejection(message, Problem(ProblemType.INVALID_JOB, str(reason)))
    if message.unchecked is not None:
        return _rejection(message, message.unchecked)
    if fields["conversation_id"] != job.conversation_id:
        fields = {**fields, "conversation_id": job.conversation_id}
    return Accepted(
        id=message.id,
        fingerprint=job.conversation_id if message.has_own_id else None,
        job=job,
        received_fields=fields,
        not_before=message.not_before,
        expires_at=message.expires_at,
        traceparent=message.traceparent,
        replay_of=message.replay_of,
        ignored=message.ignored,
        tracestate=message.tracestate,
        naive_times=message.naive_times,
    )


def idempotency_key(job_id: str) -> str:
    """Return the Idempotency-Key of all calls of a job: its id if a header can hold it, else a UUID of the id."""
    if _VISIBLE_ASCII.fullmatch(job_id):
        return job_id
    return str(uuid.uuid5(IDEMPOTENCY_NAMESPACE, job_id))


def _fields(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the job's fields from any of the ways to give them.

    Raises:
        ValueError: they are given in no known way; the message is for people.
    """
    if not args:
        return kwargs
    if kwargs:
        raise ValueError(f"The job has positional and keyword arguments; {_ARGUMENTS}.")
    if len(args) > 1:
        raise ValueError(f"The job has {len(args):,} positional arguments; {_ARGUMENTS}.")
    only = as_text(args[0])
    if isinstance(only, dict) and python_type(only) is None:
        return only
    if isinstance(only, str | int) and not isinstance(only, bool):
        return {"conversation_id": only}
    raise ValueError(f"The positional argument is {describe(only)}; {_ARGUMENTS}.")


def _validated(fields: Mapping[str, Any]) -> tuple[Job, Mapping[str, Any]]:
    """Return the job, and its fields with UUIDs and datetimes of Celery's JSON as texts.

    Raises:
        ValueError: the job is invalid; the message names the wrong fields.
    """
    # Making an error for each of a hundred thousand unknown fields takes half a second, and only ten are shown.
    is_too_wide = len(fields) > _MAX_VALIDATED_FIELDS
    try:
        job = Job.model_validate(_known(fields) if is_too_wide else fields)
    except ValidationError as error:
        texts = _with_texts(fields)
        if texts is not fields:
            return _validated(texts)
        raise ValueError(_explain(error, fields)) from None
    if is_too_wide:
        raise ValueError(_explain(None, fields))
    return job, fields


def _with_texts(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields with UUIDs and datetimes as texts; the same object if there are none."""
    texts: dict[str, Any] = {}
    for name in _TEXTS:
        if isinstance(fields.get(name), dict) and isinstance(text := as_text(fields[name]), str):
            texts[name] = text
    policies = fields.get("policies")
    if isinstance(policies, list) and len(policies) <= _MAX_POLICIES:
        policy_texts = [as_text(policy) for policy in policies]
        if policy_texts != policies:
            texts["policies"] = policy_texts
    return {**fields, **texts} if texts else fields


def _known(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: fields[name] for name in _REQUIREMENTS if name in fields}


def _explain(error: ValidationError | None, fields: Mapping[str, Any]) -> str:
    """Return one sentence for each wrong field, ten at most, even if a field is wrong in several ways."""
    messages: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_context=False, include_input=False) if error else ():
        if problem["loc"] and problem["loc"][0] in _REQUIREMENTS:
            messages.setdefault(str(problem["loc"][0]), problem["msg"])
    sentences = [_sentence(name, message, fields.get(name)) for name, message in messages.items()]
    count = len(fields) - len(_known(fields))
    unknown = list(islice((name for name in fields if name not in _REQUIREMENTS), _NAMED_FIELDS - len(sentences)))
    sentences += no_such_fields(unknown)
    if count > len(unknown):
        sentences.append(f"{count - len(unknown):,} more fields are wrong.")
    return " ".join(sentences)


def _sentence(name: str, message: str, value: Any) -> str:
    requirement = _REQUIREMENTS[name]
    if value is None:
        return f"{name}: is missing; it {requirement}."
    if message.startswith(_PYDANTIC_PREFIX):
        return f"{name}: {message.removeprefix(_PYDANTIC_PREFIX)}; it {requirement}."
    return f"{name}: {requirement}, and is {describe(value)}."


def no_such_fields(names: Iterable[str]) -> Iterable[str]:
    """Yield a sentence about each name that is no field's, with the field that is likely meant."""
    to_compare = _COMPARED_NAMES
    for name in names:
        meant = _NAMES.get(_SEPARATORS.sub("", name[:_COMPARED_CHARACTERS]).lower())
        if meant is None and to_compare and len(name) <= _COMPARED_CHARACTERS:
            to_compare -= 1
            meant = _alike(name)
        yield f"{shorten(name)}: there is no such field{f'; {meant} may be meant' if meant else '; remove it'}."


@lru_cache(maxsize=256)  # a producer that misspells a field does so in each message
def _alike(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name, _REQUIREMENTS, n=1)), None)


def _rejection(message: Message | UndecodableMessage, problem: Problem) -> Rejection:
    understood = _with_texts(_understood(message.args or [], message.kwargs or {}))
    subject = _usable_conversation_id(understood)
    return Rejection(
        id=message.id,
        fingerprint=subject or "" if message.has_own_id else None,
        subject=subject,
        problem=problem,
        received_fields=None if message.unchecked else _received_fields(understood, subject),
        replay_of=message.replay_of,
        is_dry_run=understood.get("dry_run") is True,
        traceparent=message.traceparent,
        tracestate=message.tracestate,
    )


def _understood(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a rejected job, as far as they can be understood."""
    try:
        return _fields(args, kwargs)
    except ValueError:
        pass
    try:
        # The usual mistake is the id as an argument and the rest as keywords. They are merged unless both name a field.
        positional = _fields(args, {})
    except ValueError:
        return kwargs
    return {} if positional.keys() & kwargs.keys() else {**positional, **kwargs}


def _usable_conversation_id(fields: Mapping[str, Any]) -> str | None:
    try:
        return Job.model_validate({"conversation_id": fields.get("conversation_id")}).conversation_id
    except ValidationError:
        return None


def _received_fields(fields: Mapping[str, Any], subject: str | None) -> Mapping[str, Any] | None:
    if not fields:
        return None
    received_fields = fields if subject is None else {**fields, "conversation_id": subject}
    try:
        size = _json_bytes(received_fields, MAX_RECEIVED_BYTES)
    except (PydanticSerializationError, ValueError, RecursionError):
        return None
    return received_fields if size <= MAX_RECEIVED_BYTES else None
