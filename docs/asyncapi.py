"""The AsyncAPI 3 document: which channels there are, and what goes over them."""

from __future__ import annotations

from typing import Any, get_args
from urllib.parse import urlsplit

from settings import Settings
from worker.broker.keys import PRIORITY_STEPS
from worker.message.control_event import TYPE_PREFIX, What
from worker.message.selector import Selector

_DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


def asyncapi() -> dict[str, Any]:
    """The document, with the default of every setting."""
    redis = urlsplit(_DEFAULTS["REDIS_URL"].get_secret_value())
    steps = ", ".join(str(step) for step in PRIORITY_STEPS if step)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:lock-worker",
        "info": {
            "title": "lock-worker",
            "version": "1.0.0",
            "description": "Takes jobs that lock a conversation, and tells of each in exactly one event. This is "
            "version 1 of the contract, which changes only by adding. Names are the defaults of the settings that "
            "stand beside them.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "redis": {
                "host": redis.netloc,
                "pathname": redis.path,
                "protocol": "redis",
                "description": "Redis 7 or later, or Valkey (REDIS_URL). With rediss:// the certificate and the host "
                "name are verified.",
            }
        },
        "channels": {
            "jobs": {
                "address": _DEFAULTS["LOCK_QUEUE"],
                "title": "Jobs",
                "description": "A list (LOCK_QUEUE), in the layout of Celery's Redis transport: LPUSH a message, or "
                f"let Celery do it. Lower priorities ({steps}) have a list each, whose name ends in \\x06\\x16 and the "
                "number.",
                "servers": [{"$ref": "#/servers/redis"}],
                "messages": {"job": {"$ref": "#/components/messages/job"}},
            },
            "results": {
                "address": _DEFAULTS["RESULTS_CHANNEL"],
                "title": "Results",
                "description": "A stream, and the pub/sub channel of the same name (RESULTS_CHANNEL). An entry of the "
                "stream holds the event as JSON in its field `event`; over pub/sub the event comes as it is. The "
                f"stream is the record, of about the last {_DEFAULTS['RESULTS_MAXLEN']:,} events (RESULTS_MAXLEN) or "
                f"{_DEFAULTS['RESULTS_MAX_BYTES']:,} bytes (RESULTS_MAX_BYTES); pub/sub reaches who listens.",
                "servers": [{"$ref": "#/servers/redis"}],
                "messages": {"result": {"$ref": "#/components/messages/result"}},
            },
            "dead": {
                "address": _DEFAULTS["DEAD_STREAM"],
                "title": "Dead letters",
                "description": "A stream (DEAD_STREAM) of about the last "
                f"{_DEFAULTS['DEAD_MAXLEN']:,} jobs that ended as conversation.lock_failed (DEAD_MAXLEN), or of "
                f"{_DEFAULTS['DEAD_MAX_BYTES']:,} bytes (DEAD_MAX_BYTES).",
                "servers": [{"$ref": "#/servers/redis"}],
                "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
            },
            "control": {
                "address": _DEFAULTS["CONTROL_STREAM"],
                "title": "Control stream",
                "description": "A stream (CONTROL_STREAM) of about the last "
                f"{_DEFAULTS['CONTROL_MAXLEN']:,} actions of operators (CONTROL_MAXLEN). An entry holds the event as "
                "JSON in its field `event`.",
                "servers": [{"$ref": "#/servers/redis"}],
                "messages": {"control": {"$ref": "#/components/messages/control"}},
            },
        },
        "operations": {
            "takeJob": _operation("receive", "jobs", "job", "Take a job."),
            "publishResult": _operation("send", "results", "result", "Tell of a job's end, once."),
            "keepDeadLetter": _operation("send", "dead", "deadLetter", "Keep what failed, to look at and to replay."),
            "noteAction": _operation("send", "control", "control", "Note what an operator did, in the same step."),
        },
        "components": {
            "messages": {
                "job": {
                    "title": "Job",
                    "summary": "A Celery message that carries a job.",
                    "contentType": "application/json",
                    "correlationId": {"description": "The job id.", "location": "$message.payload#/headers/id"},
                    "payload": {"$ref": "./schemas/message.json"},
                },
                "result": {
                    "title": "Result event",
                    "summary": "What came of a job: a CloudEvents 1.0 event in structured JSON mode.",
                    "contentType": "application/cloudevents+json",
                    "correlationId": {"description": "The job id.", "location": "$message.payload#/data/job_id"},
                    "payload": {"$ref": "./schemas/event.json"},
                },
                "deadLetter": {
                    "title": "Dead letter",
                    "summary": "The fields of an entry in the stream.",
                    "payload": {
                        "type": "object",
                        "required": ["event", "queue", "message"],
                        "properties": {
                            "event": {
                                "description": "The result event as JSON: ./schemas/event.json.",
                                "type": "string",
                                "contentMediaType": "application/json",
                            },
                            "queue": {"description": "The queue that the job was taken from.", "type": "string"},
                            "message": {
                                "description": "The queue message, byte for byte; of a rejected one over 64 KiB its "
                                "first 64 KiB.",
                                "type": "string",
                            },
                        },
                    },
                },
                "control": {
                    "title": "Control event",
                    "summary": "What an operator did: a CloudEvents 1.0 event in structured JSON mode.",
                    "contentType": "application/cloudevents+json",
                    "payload": _control_event(),
                },
            }
        },
    }


def _control_event() -> dict[str, Any]:
    text = {"type": "string"}
    time = {"type": "string", "format": "date-time"}
    names = ["specversion", "id", "source", "subject", "datacontenttype"]
    return {
        "type": "object",
        "required": [*names, "type", "time", "data"],
        "properties": {
            **dict.fromkeys(names, text),
            "type": {
                "description": "What was done; there may be more types later.",
                "type": "string",
                "examples": [f"{TYPE_PREFIX}{what}" for what in get_args(What)],
            },
            "time": time,
            "data": {
                "type": "object",
                "required": ["queue", "by", "reason", "at", "until"],
                "properties": {
                    "queue": {"description": "LOCK_QUEUE, which names the fleet.", "type": "string"},
                    "by": {"description": "LOCK_WORKER_ACTOR, else the login name.", "type": "string"},
                    "reason": text,
                    "at": time,
                    "until": {
                        "description": "Null: until it is ended.",
                        "type": ["string", "null"],
                        "format": "date-time",
                    },
                    "selector": {
                        "description": "Jobs with all of these; empty: all jobs.",
                        "type": "object",
                        "properties": dict.fromkeys(Selector.__slots__, text),
                    },
                    "kind": {"enum": ["hold", "cancel"]},
                    "jobs": {"description": "How many job ids.", "type": "integer", "minimum": 1},
                    "job_ids": {"description": "The first of them.", "type": "array", "items": text},
                },
            },
        },
    }


def _operation(action: str, channel: str, message: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }
