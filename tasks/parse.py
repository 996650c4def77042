"""Reads a job from the arguments of a message.

:func:`parse` returns for any message: an :class:`Accepted` job, or a :class:`Rejection`. A rejection names the wrong
fields (ten at most) and the fix for each, and quotes no value. :func:`parse` guesses nothing. Beyond what
``tasks.job`` converts, it converts only UUIDs and datetimes as Celery's JSON writes them. Only the API knows if the
conversation exists.

It runs on the asyncio loop, which also renews the leases, so its time is bounded even for a megabyte of junk.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from tasks import verbatim
from tasks.celery_json import as_text, python_type
from tasks.event import MAX_RECEIVED_BYTES
from tasks.job import MAX_CONVERSATION_ID_CHARACTERS, MAX_LEVELS, MAX_METADATA_BYTES, MAX_POLICIES, Job
from tasks.message import Accepted, Message, Rejection
from tasks.outcome import Problem, ProblemType
from tasks.redaction import describe, shorten
from tasks.shadow import NO_SHADOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tasks.message import ParsedJob, UndecodableMessage
    from tasks.shadow import Shadow

_NAMED_FIELDS = 10
_MAX_VALIDATED_FIELDS = 32
_COMPARED_CHARACTERS = 36
"""Longer names are not compared with the fields', of which the longest has 15 characters."""
_COMPARED_NAMES = 3
"""At most this many names of one message are compared with the fields' for misspellings, which is the slowest step."""
_PYDANTIC_PREFIX = "Value error, "  # pydantic puts this before the texts of the checks in tasks.job

# What each field must be, in the words of a rejection.
_REQUIREMENTS = {
    "conversation_id": f"must be a string of 1 to {MAX_CONVERSATION_ID_CHARACTERS} characters (or an integer) without "
    "control characters, and neither . nor ..",
    "reason": "must be a string of at most 1,000 characters",
    "rule_id": "must be a string of at most 128 characters",
    "policies": f"must be a list of at most {MAX_POLICIES} strings of at most 128 characters each",
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


def parse(message: Message | UndecodableMessage, shadow: Shadow = NO_SHADOW) -> ParsedJob:
    """Read a message as a job; never raises. ``shadow`` says which jobs are dry runs by setting."""
    if not isinstance(message, Message):
        return _rejection(message, message.problem, shadow)
    try:
        job, fields = _validated(_fields(message.args, message.kwargs))
    except ValueError as reason:
        return _rejection(message, Problem(ProblemType.INVALID_JOB, str(reason)), shadow)
    if message.unchecked is not None:
        return _rejection(message, message.unchecked, shadow)
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
        is_in_shadow=shadow.covers(job.rule_id),
    )


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
    if isinstance(policies, list) and len(policies) <= MAX_POLICIES:
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


def _rejection(message: Message | UndecodableMessage, problem: Problem, shadow: Shadow) -> Rejection:
    understood = _with_texts(_understood(message.args or [], message.kwargs or {}))
    subject = _usable_conversation_id(understood)
    return Rejection(
        id=message.id,
        fingerprint=subject or "" if message.has_own_id else None,
        subject=subject,
        problem=problem,
        received_fields=None if message.unchecked else _received_fields(understood, subject),
        replay_of=message.replay_of,
        is_dry_run=understood.get("dry_run") is True or shadow.covers(understood.get("rule_id")),
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
        size = verbatim.size(received_fields, MAX_RECEIVED_BYTES)
    except (PydanticSerializationError, ValueError, RecursionError):
        return None
    return received_fields if size <= MAX_RECEIVED_BYTES else None
