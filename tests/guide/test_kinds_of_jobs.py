"""Jobs that wait, and jobs that only ask what would be done."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_a_job_for_later_waits_in_redis_until_its_time(stage: Stage) -> None:
    stage.worker()

    job = stage.send("c-42", countdown=1)

    data = stage.event_of(job)["data"]
    assert data["outcome"] == "locked"
    received, finished = (datetime.fromisoformat(data[name]) for name in ("received_at", "finished_at"))
    assert (finished - received).total_seconds() > 0.5


def test_a_dry_run_calls_nobody(stage: Stage) -> None:
    stage.worker()

    job = stage.send("c-42", fields={"dry_run": True})

    assert stage.outcome_of(job) == "would_lock"
    assert stage.api.calls() == []
