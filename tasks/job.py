"""The fields of a job that a producer may send, and the rules for each.

:class:`Job` is the published schema of a job's fields. It converts only an integer conversation id. It rejects unknown
fields, because ``dryrun`` must not lock by accident. ``tasks.parse`` reads a message with it.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from datetime import datetime  # noqa: TC003 - pydantic reads the annotation
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticSerializationError

from tasks import rfc3339, verbatim
from tasks.strict_json import NotStrictError, check_levels

MAX_METADATA_BYTES = 8 * 1024
MAX_LEVELS = 32

IDEMPOTENCY_NAMESPACE = uuid.UUID("56e3075f-7a27-5809-ae23-6e70779160f2")
"""The UUIDv5 of the URL ``https://api.managem.co.uk/conversations``; it must never change."""

MAX_CONVERSATION_ID_CHARACTERS = 256
MAX_POLICIES = 20
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


def _small(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        size = verbatim.size(value, MAX_METADATA_BYTES)
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
    Field(min_length=1, max_length=MAX_CONVERSATION_ID_CHARACTERS),
    BeforeValidator(_integer_as_text),
    AfterValidator(_path_segment),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_CONVERSATION_ID_CHARACTERS,
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
    policies: Annotated[list[ShortText], Field(max_length=MAX_POLICIES)] | None = Field(
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


def idempotency_key(job_id: str) -> str:
    """Return the Idempotency-Key of all calls of a job: its id if a header can hold it, else a UUID of the id."""
    if _VISIBLE_ASCII.fullmatch(job_id):
        return job_id
    return str(uuid.uuid5(IDEMPOTENCY_NAMESPACE, job_id))
