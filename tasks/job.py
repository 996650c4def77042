"""The job: what a producer may ask, and how a message's arguments are understood.

:class:`Job` is the published schema of a job's fields. :func:`parse` is total: it answers any message with an
:class:`Accepted` job or with a :class:`Rejection` that names the wrong fields (ten of them at most) and their mends,
and repeats nothing of what the message says. Nothing is guessed: but for an integer conversation id, and for UUIDs and
datetimes as Celery's JSON writes them, no value is converted, and an unknown field is refused, because ``dryrun`` must
not lock by accident. Whether the conversation exists is the API's business.

It runs on the event loop that renews the leases, so what it does is bounded also for a megabyte of junk.
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
"""A longer name is like no field's: the longest of theirs has 15 characters."""
_COMPARED_NAMES = 3
"""So many names of one message are compared with the fields' at length, which takes longer than all else about them."""
_PYDANTIC_PREFIX = "Value error, "  # what pydantic puts before the words of the checks below
_VISIBLE_ASCII = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def _integer_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _path_segment(value: str) -> str:
    if value in {".", ".."}:
        raise ValueError("is no path segment of its own")
    # Only Cc may not stand in a path; an ASCII text, which nearly all are, is known to hold none by being printable.
    if not (value.isascii() and value.isprintable()) and any(unicodedata.category(char) == "Cc" for char in value):
        raise ValueError("holds a control character")
    return value


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("is no string")  # noqa: TRY004 - pydantic reads a ValueError
    return rfc3339.parse(value)


def _false_if_null(value: Any) -> Any:
    return False if value is None else value


def _json_bytes(value: Mapping[str, Any], bound: int) -> int:
    """The size of an object as JSON; of one that is beyond the bound, about."""
    size = len(to_json(value))
    if size <= bound and verbatim.are_in(value.values()):  # a number with any number of digits is short as a double
        size = len(verbatim.encode(value))
    return size


def _small(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        size = _json_bytes(value, MAX_METADATA_BYTES)
        if size <= MAX_METADATA_BYTES:  # else it is not worth the look
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
                    # As what must not be found: `$` also matches before a last line break, in Python for one.
                    "not": {"anyOf": [{"enum": [".", ".."]}, {"pattern": r"[\u0000-\u001f\u007f-\u009f]"}]},
                },
                {"type": "integer"},
            ]
        }
    ),
]
_MOMENT_SCHEMA: dict[str, Any] = {
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
        BeforeValidator(_moment),
        WithJsonSchema({"anyOf": [_MOMENT_SCHEMA, {"type": "null"}]}),
    ] = Field(None, description="When the rule fired (RFC 3339).")
    dry_run: Annotated[
        bool, BeforeValidator(_false_if_null), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
    ] = Field(default=False, description="Do everything but the call; the outcome is `would_lock`.")
    metadata: Annotated[dict[str, Any] | None, BeforeValidator(_small)] = Field(
        None, description="Opaque, given back unchanged; at most 8 KiB as JSON, at most 32 levels."
    )


# What each field must be, in the words of a refusal.
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
"""The fields by what is left of their names in any spelling: ``conversationId``, ``conversation-id``."""
_TEXTS = ("conversation_id", "reason", "rule_id", "actor", "correlation_id", "requested_at")

_ARGUMENTS = "give the fields as keyword arguments, or as one object, or give the conversation id alone"


def parse(message: Message | UndecodableMessage) -> ParsedJob:
    """Understand a message as a job; never raises."""
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
    """The key under which every attempt of a job is called: its id, where a header can hold that."""
    if _VISIBLE_ASCII.fullmatch(job_id):
        return job_id
    return str(uuid.uuid5(IDEMPOTENCY_NAMESPACE, job_id))


def _fields(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The job's fields, whichever way they were given.

    Raises:
        ValueError: none of the ways; the message is for people.
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
    """The job, and its fields without what Celery's JSON makes of UUIDs and datetimes.

    Raises:
        ValueError: they make no job; the message names the wrong ones.
    """
    # An error for each of a hundred thousand unknown fields takes half a second to make, and ten are told.
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
    """The fields with UUIDs and datetimes as their texts; the same object where Celery's JSON wrote none."""
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
    """One sentence for each wrong field, ten at most; a field that is wrong in several ways is named once."""
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
    mend = _REQUIREMENTS[name]
    if value is None:
        return f"{name}: is missing; it {mend}."
    if message.startswith(_PYDANTIC_PREFIX):
        return f"{name}: {message.removeprefix(_PYDANTIC_PREFIX)}; it {mend}."
    return f"{name}: {mend}, and is {describe(value)}."


def no_such_fields(names: Iterable[str]) -> Iterable[str]:
    """Yield a sentence about each name that is no field's, with the field that is likely meant."""
    to_compare = _COMPARED_NAMES
    for name in names:
        meant = _NAMES.get(_SEPARATORS.sub("", name[:_COMPARED_CHARACTERS]).lower())
        if meant is None and to_compare and len(name) <= _COMPARED_CHARACTERS:
            to_compare -= 1
            meant = _alike(name)
        yield f"{shorten(name)}: there is no such field{f'; {meant} may be meant' if meant else '; remove it'}."


@lru_cache(maxsize=256)  # a producer that misspells a field does so in each of its messages
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
    """What can be told of a refused job's fields."""
    try:
        return _fields(args, kwargs)
    except ValueError:
        pass
    try:
        # The usual slip is the id as an argument and the rest as keywords: told together, unless both name a field.
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
