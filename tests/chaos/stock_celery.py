"""A stock Celery worker that does the same job, with the settings that are meant to make it safe.

It calls the API and publishes the event to the same stream and channel. Late acknowledgement, a prefetch of one, and
a visibility timeout that is short for a stock worker (its default is an hour), but longer than any job takes.
"""

from __future__ import annotations

import json
import os
from typing import Any

import httpx
import redis
from celery import Celery

from tests.chaos.messages import TASK
from tests.chaos.names import RESULTS
from tests.chaos.targets import ATTEMPT_TIMEOUT_SECONDS

_VISIBILITY_SECONDS = 10

app = Celery("stock", broker=os.environ.get("REDIS_URL"), set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": _VISIBILITY_SECONDS},
    broker_connection_retry_on_startup=True,
)
_api = httpx.Client(timeout=ATTEMPT_TIMEOUT_SECONDS, limits=httpx.Limits(max_connections=100))
_results = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1"))


@app.task(name=TASK, bind=True, max_retries=None)
def lock_conversation(self: Any, /, conversation_id: str, **_: Any) -> None:
    """Call, publish."""
    job = self.request.id
    headers = {"Authorization": f"Bearer {os.environ['API_TOKEN']}", "Idempotency-Key": job}
    try:
        answer = _api.post(f"{os.environ['API_URL']}/conversations/{conversation_id}/lock", headers=headers)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise self.retry(exc=error, countdown=1) from error
    data = {"job_id": job, "outcome": "locked", "attempts": 1 + self.request.retries, "error": None}
    event = json.dumps({"id": job, "subject": conversation_id, "type": "conversation.locked", "data": data})
    with _results.pipeline(transaction=True) as together:
        together.xadd(RESULTS, {"event": event})
        together.publish(RESULTS, event)
        together.execute()
