"""A job that was revoked through Celery stays revoked when all workers have been replaced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.system.stage import eventually

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_a_revoked_id_is_remembered_by_workers_that_start_later(stage: Stage) -> None:
    first, second = stage.worker("-n", "one@test"), stage.worker("-n", "two@test")
    stage.producer.control.revoke("job-1", reply=True, timeout=10)
    eventually(lambda: stage.redis.exists(stage.keys.cancelled), "the note in Redis")
    assert (first.stop(), second.stop()) == (0, 0)

    worker = stage.worker()
    job = stage.send("c-1", task_id="job-1")
    other = stage.send("c-2")

    event = stage.event_of(job)
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_skipped", "revoked")
    assert event["data"]["attempts"] == 0
    assert stage.event_of(other)["data"]["outcome"] == "locked"
    (noted,) = stage.redis.xrange("moderation.control")  # once, though both workers heard of it
    noted_event = json.loads(noted[1][b"event"])
    assert noted_event["type"] == "uk.co.managem.lock-worker.control.revoked"
    assert noted_event["data"]["job_ids"] == ["job-1"]
    assert worker.stop() == 0
    stage.redis.delete("moderation.control", stage.keys.controls, stage.keys.cancelled)
    stage.redis.delete(*stage.redis.keys(f"{stage.keys.cancelled_prefix}*"))


def test_a_job_that_waits_for_its_eta_ends_as_revoked_after_a_restart(stage: Stage) -> None:
    worker = stage.worker()
    job = stage.send("c-1", countdown=3)
    eventually(lambda: stage.redis.zcard(stage.keys.delayed) == 1, "a job that waits")
    stage.producer.control.revoke(job, reply=True, timeout=10)
    eventually(lambda: stage.redis.exists(stage.keys.cancelled), "the note in Redis")
    assert worker.stop() == 0

    stage.worker()

    assert stage.event_of(job)["data"]["outcome"] == "revoked"
    stage.redis.delete("moderation.control", stage.keys.controls, stage.keys.cancelled)
    stage.redis.delete(*stage.redis.keys(f"{stage.keys.cancelled_prefix}*"))
