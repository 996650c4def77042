"""Puts jobs into Redis in each of their states, as producers and workers do."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tasks.task_name import TASK_NAME
from worker.broker.keys import Keys, digest

if TYPE_CHECKING:
    import redis

QUEUE, RESULTS, DEAD = "moderation.lock", "moderation.results", "moderation.dead"
KEYS = Keys(QUEUE)


def message(job_id: str | None = "job-1", conversation: object = "c-1", **headers: Any) -> bytes:
    """A message as a foreign client writes it."""
    fields = {"conversation_id": conversation, "rule_id": "r-7"}
    own = {} if job_id is None else {"id": job_id}
    told = {"headers": {"task": TASK_NAME, **own, **headers}, "content-type": "application/json"}
    return json.dumps({**told, "properties": {"body_encoding": "utf-8"}, "body": json.dumps([[], fields, {}])}).encode()


def event(
    job_id: str = "job-1",
    outcome: str = "locked",
    conversation: str = "c-1",
    *,
    error: str = "server_error",
    rule: str = "r-7",
    **data: Any,
) -> bytes:
    """An event as the worker writes it."""
    kind = "locked" if outcome == "locked" else "lock_failed"
    problem = {"type": error, "title": "", "status": 500, "detail": "It failed."}
    told = {
        "specversion": "1.0", "id": job_id, "source": "/lock-worker", "type": f"conversation.{kind}",
        "subject": conversation, "time": "2026-11-22T15:04:05.123456Z", "datacontenttype": "application/json",
        "data": {
            "job_id": job_id, "outcome": outcome, "attempts": 1,
            "job": {"conversation_id": conversation, "rule_id": rule}, "received_at": "2026-11-22T15:04:04.000000Z",
            "finished_at": "2026-11-22T15:04:05.123456Z",
            "conversation": {"id": conversation, "locked": True} if outcome == "locked" else None,
            "error": None if outcome == "locked" else problem, **data,
        },
    }  # fmt: skip
    return json.dumps(told, ensure_ascii=False).encode()


def now_ms() -> int:
    return int(time.time() * 1000)


def put_record(client: redis.Redis, ref: str = "pod-1.7.1.0", raw: bytes = b"", **fields: Any) -> str:
    """The record of a job that was taken a minute ago; return its name."""
    told: Any = {"raw": raw or message(), "first": now_ms() - 60_000, "lease_token": "", **fields}
    client.hset(f"{KEYS.record_prefix}{ref}", mapping=told)
    return ref


def dead_letter(client: redis.Redis, job_id: str = "job-1", outcome: str = "exhausted", **facts: Any) -> str:
    """A dead letter, with its event and its message; return its entry's id."""
    raw = facts.pop("raw", None)
    told: Any = {"event": event(job_id, outcome, **facts), "queue": QUEUE, "message": raw or message(job_id)}
    entry: Any = client.xadd(DEAD, told)
    return str(entry.decode())


def remember(client: redis.Redis, job_id: str, meaning: str, outcome: str = "") -> None:
    """What the id memory says of a job id."""
    key = f"{KEYS.id_prefix}{digest(job_id)}"
    client.set(key, f"{meaning} {digest('c-1')}")
    if outcome:
        client.set(f"{key}:unlocked", outcome)
