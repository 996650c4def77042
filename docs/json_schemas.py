"""The schemas of what goes in and out (JSON Schema 2020-12), made from the models.

But for what describes a message's body they keep to words that mean the same in draft-07, which AsyncAPI's tools read.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from tasks.event import Facts, ResultEvent, build
from tasks.history import HistoryEntry
from tasks.job import MAX_LEVELS, MAX_METADATA_BYTES, Job
from tasks.message_options import MAX_JOB_ID_CHARACTERS, MAX_WAIT
from tasks.outcome import Exhausted, Locked, Problem, ProblemType, Rejected, WouldLock
from tasks.task_name import TASK_NAME
from tasks.trace import of_job
from worker.broker.move_limits import MAX_MESSAGE_BYTES
from worker.message.celery_protocol import (
    CONTENT_ENCODINGS,
    MAX_VALUES,
)

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core.core_schema import WithDefaultSchema

    from tasks.history import History
    from tasks.outcome import Outcome

_JOB_ID = "6b1f1f4e-5f0e-4b6c-9d6a-0d9a8c1b2e3f"
_JOB = {
    "conversation_id": "c-42",
    "reason": "asked for a bank transfer",
    "rule_id": "off-platform-payment",
    "policies": ["payments-stay-here"],
    "actor": "rule-engine",
    "correlation_id": "flag-1881",
    "requested_at": "2026-11-22T15:04:05Z",
    "metadata": {"score": 0.93},
}
_ALONE = {"conversation_id": "c-42"}
_FIRST_CALL_MS = 1_795_359_845_250
_HISTORY = (
    HistoryEntry(_FIRST_CALL_MS, "call", 503, "server_error", wait_seconds=0.412),
    HistoryEntry(_FIRST_CALL_MS + 487, "call", 503, "server_error"),
)

_NOT_SAID_OF_JOB = (
    f" What a schema cannot say is refused all the same: metadata of more than {MAX_METADATA_BYTES:,} bytes as JSON or "
    f"{MAX_LEVELS} levels, an integer id of more than 256 digits or written as 1.0, a time that no calendar has, a "
    "line break after a time, half a surrogate pair, NaN and infinities, and a name that an object holds twice. What "
    "Celery's JSON makes of a Python UUID or datetime is taken as its text."
)
_NOT_SAID_OF_MESSAGE = (
    f" What a schema cannot say is refused all the same: more than {MAX_MESSAGE_BYTES:,} bytes or {MAX_VALUES:,} "
    "values, also once decompressed, an id with unprintable characters, a time that no calendar has, and a body that "
    "is not as body_encoding says. Messages that leave out more than is allowed here are taken too, as long as they "
    "can be understood, and so are those of Celery's protocol 1. link, chains, chords, time limits, reply_to and "
    "stamps have no effect."
)


#: A job that was revoked after a call has failed: its conversation may be locked.
_FAILED = ("revoked", "cancelled", "rejected", "refused", "exhausted", "poisoned")


def job() -> dict[str, Any]:
    """A job's fields, as a producer may send them."""
    schema = _of(Job)
    return _headed("job", schema["description"] + _NOT_SAID_OF_JOB, schema, [_ALONE, _JOB, {**_ALONE, "dry_run": True}])


def event() -> dict[str, Any]:
    """The result event, open to fields that later versions may add."""
    schema = _of(ResultEvent)
    for part in (schema, *schema["$defs"].values()):
        part.pop("additionalProperties", None)
    schema["oneOf"] = [
        _ending("locked", "locked", conversation="object", error="null"),
        _ending("lock_skipped", "would_lock", conversation="null", error="null"),
        _ending("lock_skipped", "expired", "revoked", "cancelled", conversation="null", error="object"),
        _ending("lock_failed", *_FAILED, conversation="null", error="object"),
    ]
    description = schema["description"] + " Later versions may add fields; ignore those that you do not know."
    return _headed("event", description, schema, _events())


def message() -> dict[str, Any]:
    """The Celery message that carries a job."""
    fields = {name: value for name, value in job().items() if name not in {"$schema", "$id"}}
    time = {
        "type": ["string", "null"],
        "maxLength": 64,
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
        r"([Zz]|[+-][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{6})?)?)?$",
    }
    only = {"anyOf": [{"$ref": "#/$defs/Job"}, {"$ref": "#/$defs/Job/properties/conversation_id"}]}
    schema = {
        "title": "Message",
        "type": "object",
        "required": ["body", "content-type", "content-encoding", "headers", "properties"],
        "properties": {
            "body": {
                "description": "The body as JSON: in base64, or as it is, as properties.body_encoding says.",
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/$defs/Body"},
            },
            "content-type": {"const": "application/json"},
            "content-encoding": {
                "description": "UTF-8, whatever a client calls the way in which it sent that; nothing depends on it.",
                "enum": sorted(CONTENT_ENCODINGS),
            },
            "headers": {
                "type": "object",
                "required": ["task", "id"],
                "properties": {
                    "task": {"const": TASK_NAME},
                    "id": {
                        "description": "The job id, printable characters: an id of its own for every job. The same id "
                        "for the same conversation is the same job, but for a dry run, which is another one.",
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MAX_JOB_ID_CHARACTERS,
                    },
                    "eta": {
                        **time,
                        "description": "Not before this time (RFC 3339; UTC where it names no offset); at most "
                        f"{MAX_WAIT.days} days ahead.",
                    },
                    "expires": {**time, "description": "Not called from this time on; written as eta is."},
                    "compression": {
                        "description": "Of the body, beneath base64.",
                        "enum": [
                            None,
                            "gzip",
                            "zlib",
                            "application/gzip",
                            "application/zlib",
                            "application/x-gzip",
                            "application/x-zlib",
                        ],
                    },
                    "traceparent": {
                        "description": "W3C trace context: the calls and the event continue the producer's trace. "
                        "Later versions are read as version 00.",
                        "type": "string",
                        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
                    },
                    "tracestate": {
                        "description": "W3C trace context: goes along with the traceparent.",
                        "type": "string",
                    },
                    "replay_of": {"description": "The id of the job that this one repeats.", "type": "string"},
                },
            },
            "properties": {
                "type": "object",
                "required": ["body_encoding"],
                "properties": {"body_encoding": {"enum": ["base64", "utf-8", None]}},
            },
        },
        "$defs": {
            "Body": {
                "title": "Body",
                "description": "[args, kwargs, embed]: the job's fields as keyword arguments or as one object, or the "
                "conversation id alone.",
                "type": "array",
                "maxItems": 3,
                "anyOf": [
                    _arguments({"maxItems": 0}, {"$ref": "#/$defs/Job"}),
                    _arguments({"minItems": 1, "maxItems": 1, "items": only}, {"maxProperties": 0}),
                ],
            },
            "Job": fields,
        },
    }
    description = "A job on its queue: one JSON object, a Celery message of protocol 2." + _NOT_SAID_OF_MESSAGE
    example = {
        "headers": {"task": TASK_NAME, "id": _JOB_ID},
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": {"body_encoding": "utf-8"},
        "body": json.dumps([[], _ALONE, {}]),
    }
    return _headed("message", description, schema, [example])


class _Generator(GenerateJsonSchema):
    """No titles that only repeat a field's name, and no defaults that only stand for a field that is left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class asks
        return False

    def default_schema(self, schema: WithDefaultSchema) -> dict[str, Any]:
        stands_for_nothing = schema.get("default") in (None, "")
        return self.generate_inner(schema["schema"]) if stands_for_nothing else super().default_schema(schema)


def _of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(schema_generator=_Generator)


def _headed(name: str, description: str, schema: dict[str, Any], examples: list[Any]) -> dict[str, Any]:
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:lock-worker:{name}:1",
        "title": schema["title"],
        "description": description,
    }
    return {**head, **{key: value for key, value in schema.items() if key not in head}, "examples": examples}


def _ending(event_type: str, *outcomes: str, conversation: str, error: str) -> dict[str, Any]:
    """What goes together in an event."""
    data = {
        "outcome": {"enum": list(outcomes)}, "conversation": {"type": conversation}, "error": {"type": error},
    }  # fmt: skip
    return {"properties": {"type": {"const": f"conversation.{event_type}"}, "data": {"properties": data}}}


def _arguments(args: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    embed = {"type": ["object", "null"]}
    return {"minItems": 2, "prefixItems": [{"type": "array", **args}, {"type": "object", **kwargs}, embed]}


def _events() -> list[Any]:
    """An event of each kind, made as the worker makes them."""
    conversation = {
        "id": "c-42",
        "source": {"type": "ORDER", "id": "o-7"},
        "locked": True,
        "createdAt": "2026-11-20T09:00:00Z",
        "updatedAt": "2026-11-22T15:04:06Z",
    }
    failed = Problem(ProblemType.SERVER_ERROR, "The API answered 503.", 503)
    wrong = Problem(ProblemType.INVALID_JOB, "'dryrun': there is no such field; dry_run may be meant.")
    return [
        _event(Locked(conversation), _JOB, attempts=1),
        _event(WouldLock(), {**_ALONE, "dry_run": True}, attempts=0),
        _event(Exhausted(failed), _ALONE, attempts=2, history=_HISTORY),
        _event(Rejected(wrong), {**_ALONE, "dryrun": True}, attempts=0),
    ]


def _event(outcome: Outcome, echo: dict[str, Any], *, attempts: int, history: History = ()) -> Any:
    facts = Facts(
        id=_JOB_ID,
        subject="c-42",
        received_fields=echo,
        replay_of=None,
        received_at=datetime(2026, 11, 22, 15, 4, 5, 250_000, tzinfo=UTC),
        finished_at=datetime(2026, 11, 22, 15, 4, 6, 123_456, tzinfo=UTC),
        attempts=attempts,
        trace=of_job(None, None, ("moderation.lock", _JOB_ID)),
        history=history,
    )
    return json.loads(build(facts, outcome).body)
