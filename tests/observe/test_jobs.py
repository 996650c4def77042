"""What the log and the counters tell of a job that waits: once for each retry, whatever the place."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest

from tasks.decision import Later
from tasks.outcome import OutcomeName, Problem, ProblemType
from tasks.retry import RETRY_REASONS, Place, RetryDetails
from worker.observe import jobs, metrics

if TYPE_CHECKING:
    from tasks.event import Event
    from tasks.message import ParsedJob


def counted(metric: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(metric, labels)


def job() -> ParsedJob:
    return cast("ParsedJob", SimpleNamespace(id="job-1", subject="c-1"))


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

    jobs.retried(RetryDetails("job-1", 3, reason, status, 0.12345, where, "c-1"))

    (line,) = caplog.records
    facts: dict[str, Any] = vars(line)
    assert (line.levelno, line.message) == (logging.INFO, "job_retry")
    assert {name: facts[name] for name in ("job", "conversation", "attempt", "reason", "status", "wait", "where")} == {
        "job": "job-1", "conversation": "c-1", "attempt": 3, "reason": reason, "status": status, "wait": 0.123,
        "where": where,
    }  # fmt: skip
    assert counted("lock_worker_job_retries_total", reason=reason) == before + 1


def test_a_job_put_aside_before_a_call_is_reported_and_one_that_waits_for_a_retry_is_not_reported_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = counted("lock_worker_jobs_delayed_total", reason="requeued") or 0

    jobs.delayed(job(), Later(30.0, "server_error", is_retry=True), attempts=1, status=500)
    assert caplog.records == []

    jobs.delayed(job(), Later(29.99999, "requeued"), attempts=2, status=503)
    (line,) = caplog.records
    assert (line.levelno, line.message) == (logging.INFO, "job_delayed")
    assert {name: vars(line)[name] for name in ("job", "conversation", "reason", "attempts", "status", "wait")} == {
        "job": "job-1", "conversation": "c-1", "reason": "requeued", "attempts": 2, "status": 503, "wait": 30.0,
    }  # fmt: skip
    assert counted("lock_worker_jobs_delayed_total", reason="requeued") == before + 1


@pytest.mark.parametrize(
    ("problem", "level", "status", "error"),
    [
        (None, logging.INFO, None, None),
        (Problem(ProblemType.NOT_FOUND, "There is none.", 404), logging.WARNING, 404, "not_found"),
        (Problem(ProblemType.TIMEOUT, "Too late."), logging.WARNING, None, "timeout"),
        (Problem(ProblemType.FORBIDDEN, "No.", 401), logging.WARNING, 401, "token_refused"),
    ],
)
def test_an_end_is_one_line_with_what_the_api_answered(
    problem: Problem | None, level: int, status: int | None, error: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    event = cast("Event", SimpleNamespace(outcome="locked", failed=problem is not None, problem=problem))

    jobs.finished(job(), event, attempts=3, seconds=1.23456)

    (line,) = caplog.records
    names = ("job", "conversation", "outcome", "attempts", "status", "error", "seconds")
    assert (line.levelno, line.message) == (level, "job_finished")
    assert [vars(line)[name] for name in names] == ["job-1", "c-1", "locked", 3, status, error, 1.235]


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
