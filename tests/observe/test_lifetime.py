"""What the log tells of a worker's start and end: how it is set, without a secret, and what it has done."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from settings import Settings, load
from worker.observe import jobs, metrics
from worker.observe.lifetime import Lifetime

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An environment without any of the options."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    caplog.set_level(logging.INFO)


def lifetime() -> Lifetime:
    return Lifetime(load(need_token=False), name="host-1-ab", version="1.2.3")


def started(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    lifetime().started(node="celery@host", queues=["a", "b"], concurrency=7, task_events=False)
    return vars(caplog.records[0])


def test_a_start_tells_how_the_worker_is_set(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("RATE_LIMIT_PER_SECOND", "5")
    monkeypatch.setenv("API_URL", "https://api.example.com:8443/v1")

    line = started(caplog)

    told = {
        "message": "worker_started", "levelname": "INFO", "version": "1.2.3", "node": "celery@host",
        "worker": "host-1-ab", "queues": ["a", "b"], "api": "api.example.com:8443", "redis": "redis://127.0.0.1:6379/0",
        "results": "moderation.results", "dead": "moderation.dead", "concurrency": 7, "rate_limit_per_second": 5.0,
        "lease_seconds": 30.0, "max_attempts": 8, "dry_run": False, "rules_dry_run": None,
        "settings": {"RATE_LIMIT_PER_SECOND": 5.0, "API_URL": "https://api.example.com:8443/v1"},
    }  # fmt: skip
    assert {name: line[name] for name in told} == told


def test_of_a_secret_a_start_tells_only_that_it_is_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REDIS_URL", f"rediss://me:{SECRET}@redis.example.com/3")
    monkeypatch.setenv("API_TOKEN", SECRET)

    line = started(caplog)

    assert line["settings"] == {"REDIS_URL": "set", "API_TOKEN": "set"}
    assert line["redis"] == "rediss://redis.example.com:6379/3"
    assert SECRET not in repr(line)


def test_a_worker_with_default_settings_tells_of_none(caplog: pytest.LogCaptureFixture) -> None:
    assert started(caplog)["settings"] == {}


def test_variables_that_look_like_a_slip_are_warnings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("API_TOKN", SECRET)
    monkeypatch.setenv("LOCK_QUEUE", " moderation.lock")

    started(caplog)

    lines = [vars(record) for record in caplog.records if record.levelname == "WARNING"]
    assert [(line["message"], line["setting"], line["problem"]) for line in lines] == [
        ("setting_unknown", "API_TOKN", "not a setting; API_TOKEN may be meant"),
        ("setting_odd", "LOCK_QUEUE", "its value has blanks around it, which are taken as part of it"),
    ]
    assert SECRET not in caplog.text


def test_an_end_tells_why_and_how_many_jobs_ended_how(caplog: pytest.LogCaptureFixture) -> None:
    one = lifetime()
    before = metrics.REGISTRY.get_sample_value("lock_worker_jobs_finished_total", {"outcome": "locked"})
    released = jobs.released_so_far()
    metrics.finished("locked").inc()
    jobs.released()

    one.asked_to_stop("SIGTERM")
    one.asked_to_stop("SIGQUIT")
    one.stopped(1)

    line = vars(caplog.records[-1])
    assert (line["message"], line["levelname"]) == ("worker_stopped", "INFO")
    assert (line["reason"], line["exit_status"]) == ("SIGTERM, SIGQUIT", 1)
    assert line["finished"]["locked"] == (before or 0) + 1
    assert 0 not in line["finished"].values()
    assert line["released"] == released + 1
    assert line["seconds"] >= 0


def test_an_end_that_nobody_asked_for_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    lifetime().stopped(None)

    assert (vars(caplog.records[-1])["reason"], vars(caplog.records[-1])["exit_status"]) == ("error", 0)
