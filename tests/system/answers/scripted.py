"""Scripts the answers of the API for one conversation, and looks at the result of its job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sandbox.script import Rule, Script
from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from sandbox.call_log import Call
    from sandbox.faults import AnyAnswer, AnyDelay

#: Of the module's worker.
MAX_ATTEMPTS = 3
LONGEST_WAIT_SECONDS = 60


def answer_in_turn(stage: Stage, conversation: str, *faults: AnyAnswer | AnyDelay) -> None:
    """Answer the first calls for a conversation with these faults, one each, and all further ones without a fault."""
    rules = [Rule(id=conversation, nth_call=number, then=fault) for number, fault in enumerate(faults, 1)]
    stage.api.script = Script(rules=tuple(rules))


def answer_always(stage: Stage, conversation: str, fault: AnyAnswer | AnyDelay) -> None:
    stage.api.script = Script(rules=(Rule(id=conversation, then=fault),))


def calls_for(stage: Stage, conversation: str) -> list[Call]:
    return [call for call in stage.api.calls() if call.conversation_id == conversation]


def end_of(event: dict[str, Any]) -> tuple[str, int, str | None, int | None]:
    """An event in short: outcome, attempts, and the error's type and status."""
    data, error = event["data"], event["data"]["error"] or {}
    return data["outcome"], data["attempts"], error.get("type"), error.get("status")


def wait_delayed(stage: Stage) -> float:
    """Wait until one job is delayed for long and no worker holds it; return when it is due, as a Unix time."""

    def delayed() -> Any:
        soon = (time.time() + 10) * 1000
        return stage.redis.zrange(stage.keys.delayed, soon, "+inf", byscore=True, withscores=True)

    ((_, due_ms),) = eventually(delayed, "a delayed job")
    assert stage.redis.zcard(stage.keys.leases) == 0
    return float(due_ms) / 1000


def make_due(stage: Stage) -> None:
    """Make all delayed jobs due now."""
    for ref in stage.redis.zrange(stage.keys.delayed, 0, -1):
        stage.redis.zadd(stage.keys.delayed, {ref: 0})


def assert_locked_at_the_last_attempt(stage: Stage, conversation: str, fault: AnyAnswer) -> None:
    """Check that a job is locked if only its last attempt meets no fault."""
    answer_in_turn(stage, conversation, *[fault] * (MAX_ATTEMPTS - 1))
    job = stage.send(conversation)
    assert end_of(stage.event_of(job)) == ("locked", MAX_ATTEMPTS, None, None)
    assert len(calls_for(stage, conversation)) == MAX_ATTEMPTS


def assert_exhausted(stage: Stage, conversation: str, fault: AnyAnswer, problem: str, status: int | None) -> None:
    """Check that a job whose attempts all meet a fault ends as exhausted, and becomes a dead letter."""
    answer_always(stage, conversation, fault)
    event = stage.event_of(stage.send(conversation))
    assert end_of(event) == ("exhausted", MAX_ATTEMPTS, problem, status)
    assert event["type"] == "conversation.lock_failed"
    assert len(calls_for(stage, conversation)) == MAX_ATTEMPTS
    assert event in [dead for dead, _ in stage.dead_letters()]
