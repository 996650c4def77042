"""The messages that clients other than stock Celery send: right, sloppy, and spoilt in ways that all must be told.

What a job's variant is decides how its message looks, so a duplicate of it looks the same.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tests.chaos.plan import Kind

if TYPE_CHECKING:
    from tests.chaos.plan import Job

TASK = "moderation.lock_conversation"


def arguments(job: Job) -> dict[str, Any]:
    """The keyword arguments of a job; those of an invalid one are wrong in one of several ways."""
    fields: dict[str, Any] = {
        "conversation_id": job.conversation,
        "rule_id": job.rule,
        "actor": job.actor,
        "metadata": {"of": job.id},
    }
    if job.kind is Kind.DRY_RUN:
        fields["dry_run"] = True
    if job.kind is Kind.INVALID:
        spoilt: list[dict[str, Any]] = [
            {"dryrun": True},
            {"conversation_id": None},
            {"conversation_id": ".."},
            {"requested_at": "yesterday"},
            {"policies": "spam"},
        ]
        fields |= spoilt[job.variant % len(spoilt)]
    return fields


def task_of(job: Job) -> str:
    """The name of the task; some invalid jobs ask for one that nobody knows."""
    return "moderation.unlock" if job.kind is Kind.INVALID and job.variant % 7 == 0 else TASK


def by_hand(job: Job, now: datetime) -> bytes:
    """A job's message as clients in other languages write it: complete, or with this or that left out."""
    if job.kind is Kind.NAMELESS:
        return _nameless(job)
    headers: dict[str, Any] = {"id": job.id, "task": task_of(job)}
    if job.countdown:
        headers["eta"] = (now + timedelta(seconds=job.countdown)).isoformat()
    if job.expires:
        headers["expires"] = (now + timedelta(seconds=job.expires)).isoformat()
    body = json.dumps([[], arguments(job), {}])
    properties = {"body_encoding": "base64", "delivery_tag": "the same in every message", "delivery_info": {}}
    encoded = base64.b64encode(body.encode()).decode()
    shapes: list[dict[str, Any]] = [
        {"body": encoded, "properties": properties, "content-type": "application/json", "content-encoding": "utf-8"},
        {"body": body, "properties": {"body_encoding": "utf-8"}, "content-type": "application/json"},
        {"body": encoded},
        {"body": json.dumps([[], arguments(job)]), "properties": None},
        {"body": json.dumps([[arguments(job)], {}, {}])},
    ]
    return json.dumps({"headers": headers, **shapes[job.variant % len(shapes)]}).encode()


def nameless_key(raw: bytes) -> str:
    """What the id of a message without one begins with."""
    return f"anonymous-{blake2b(raw, digest_size=8).hexdigest()}"


def now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)


def _nameless(job: Job) -> bytes:
    spoilt = [
        b"\xff\xfe not text " + job.id.encode(),
        b"[" * 500 + job.id.encode(),
        json.dumps(["no", "object", job.id]).encode(),
        json.dumps({"headers": {"task": TASK}, "body": f"neither JSON nor base64: {job.id}"}).encode(),
        json.dumps({"headers": {"task": TASK, "id": 1.5}, "body": "[]", "of": job.id}).encode(),
    ]
    return spoilt[job.variant % len(spoilt)]
