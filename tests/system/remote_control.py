"""Asks one worker by Celery's remote control, as an operator does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.system.stage import Stage


def ask(stage: Stage, worker: str, question: str, *arguments: Any) -> Any:
    """Return what the worker answers to a question of ``celery inspect``."""
    inspect = stage.producer.control.inspect(destination=[worker], timeout=10)
    return getattr(inspect, question)(*arguments)[worker]


def assert_termination_revokes(stage: Stage, worker: str, job: str) -> None:
    """Terminate a job while its call is under way: it ends as revoked, with one event."""
    stage.producer.control.revoke(job, terminate=True, destination=[worker], reply=True, timeout=10)

    event = stage.event_of(job)
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "revoked")
    assert event["data"]["attempts"] == 1
    assert "the conversation may be locked" in event["data"]["error"]["detail"]
    stage.wait_idle()
    assert len(stage.wait_events(1)) == 1
    assert len(stage.api.calls()) == 1
    assert ask(stage, worker, "active") == []
