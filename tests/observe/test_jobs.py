"""What the log and the counters tell of a job that waits: once for each retry, whatever the place."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest

from tasks.decision import Later
from tasks.outcome import OutcomeName
from tasks.retry import RETRY_REASONS, Place, RetryDetails
from worker.observe import jobs, metrics

if TYPE_CHECKING:
    from tasks.message import ParsedJob


def counted(metric: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(metric, labels)


def job() -> ParsedJob:
    return cast("ParsedJob", SimpleNamespace(id="job-1"))


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker.observe.jobs")


@pytest.mark.parametrize("where", get_args(Place))
@pytest.mark.parametrize(("reason", "status"), [("server_error", 502), ("unreachable", None)])
def test_a_retry_is_one_line_and_one_count(
    where: Place, reason: str, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("lock_worker_job_retries_total", reason=reason)
    assert before is not None

    jobs.retried(RetryDetails("job-1", 3, reason, status, 0.12345, where))

    (line,) = caplog.records
    facts: dict[str, Any] = vars(line)
    assert (line.levelno, line.message) == (logging.INFO, "job_retry")
    assert {name: facts[name] for name in ("job", "attempt", "reason", "status", "wait", "where")} == {
        "job": "job-1", "attempt": 3, "reason": reason, "status": status, "wait": 0.123, "where": where,
    }  # fmt: skip
    assert counted("lock_worker_job_retries_total", reason=reason) == before + 1


def test_a_job_put_aside_before_a_call_is_reported_and_one_that_waits_for_a_retry_is_not_reported_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = counted("lock_worker_jobs_delayed_total", reason="eta") or 0

    jobs.delayed(job(), Later(30.0, "server_error", is_retry=True), attempts=1)
    assert caplog.records == []

    jobs.delayed(job(), Later(30.0, "eta"), attempts=0)
    assert [(line.message, vars(line)["reason"]) for line in caplog.records] == [("job_delayed", "eta")]
    assert counted("lock_worker_jobs_delayed_total", reason="eta") == before + 1


@pytest.mark.parametrize(
    ("metric", "label", "values"),
    [
        ("lock_worker_jobs_finished_total", "outcome", get_args(OutcomeName)),
        ("lock_worker_jobs_delayed_total", "reason", ("eta", "requeued")),
        ("lock_worker_job_retries_total", "reason", RETRY_REASONS),
    ],
)
def test_each_series_is_there_from_the_start(metric: str, label: str, values: tuple[str, ...]) -> None:
    assert all(counted(metric, **{label: value}) is not None for value in values)
