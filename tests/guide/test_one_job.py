"""A job comes in, a call goes out, an event tells the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_a_job_is_locked_and_reported_once(stage: Stage) -> None:
    stage.worker()

    job = stage.send("c-42")  # as any Celery app does

    (event,) = stage.wait_events(1)
    assert event["type"] == "conversation.locked"
    assert event["subject"] == "c-42"
    assert event["data"]["job_id"] == job
    assert event["data"]["conversation"]["locked"] is True
    (call,) = stage.api.calls()
    assert (call.method, call.target) == ("POST", b"/conversations/c-42/lock")
    stage.wait_idle()


def test_any_language_can_send_a_job_as_json(stage: Stage) -> None:
    stage.worker()

    headers = {"task": "moderation.lock_conversation", "id": "from-anywhere"}
    stage.push(json.dumps({"headers": headers, "body": '[["c-42"], {}, {}]'}))

    assert stage.outcome_of("from-anywhere") == "locked"


def test_a_bad_message_is_reported_and_kept(stage: Stage) -> None:
    stage.worker()

    stage.push(b"no JSON")

    (event,) = stage.wait_events(1)
    assert (event["data"]["outcome"], event["data"]["error"]["type"]) == ("rejected", "undecodable")
    ((_, kept),) = stage.dead_letters()
    assert kept == b"no JSON"
    assert stage.api.calls() == []
