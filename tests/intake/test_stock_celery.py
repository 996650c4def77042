"""What Celery's own producers write is a job, with or without what has no effect here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chord, group, signature

from tasks.lock_conversation import TASK_NAME
from tasks.outcome import ProblemType
from tests.intake.messages import NOW, accepted, refused, stock

FIELDS = {
    "conversation_id": "c-1",
    "reason": "asked for a bank transfer \N{SMILING FACE WITH SMILING EYES}",
    "rule_id": "r-17",
    "policies": ["off-platform payment"],
    "requested_at": "2026-11-22T15:04:05Z",
    "metadata": {"score": 0.93},
}


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    ("body_encoding", "compression"),
    [("base64", None), ("utf-8", None), (None, None), ("base64", "gzip"), ("base64", "zlib")],
)
def test_every_form_of_a_celery_message_is_the_same_job(
    protocol: int, body_encoding: str | None, compression: str | None
) -> None:
    raw = stock(kwargs=FIELDS, protocol=protocol, body_encoding=body_encoding, compression=compression, task_id="job-1")
    found = accepted(raw)
    assert (found.id, found.binding, found.subject) == ("job-1", "c-1", "c-1")
    assert found.echo == FIELDS
    assert found.job.metadata == FIELDS["metadata"]
    assert found.job.requested_at == datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
    assert (found.not_before, found.expires_at, found.traceparent, found.replay_of) == (None, None, None, None)


@pytest.mark.parametrize("protocol", [1, 2])
def test_eta_and_expires_are_kept_as_moments(protocol: int) -> None:
    eta, expires = NOW + timedelta(days=3), NOW - timedelta(days=400)
    found = accepted(stock(protocol=protocol, eta=eta, expires=expires))
    assert (found.not_before, found.expires_at) == (eta, expires)


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_countdown_is_an_eta(protocol: int) -> None:
    found = accepted(stock(protocol=protocol, countdown=60))
    assert found.not_before is not None
    assert abs(found.not_before - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=30)


def test_a_positional_id_is_the_conversation() -> None:
    assert accepted(stock("c-9")).job.conversation_id == "c-9"


def test_headers_of_the_producers_own_are_read() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = accepted(stock(headers={"traceparent": trace, "replay_of": "old-1"}))
    assert (found.traceparent, found.replay_of) == (trace, "old-1")


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ({"link": signature("other.task")}, ("link",)),
        ({"link_error": signature("other.task")}, ("link_error",)),
        ({"chain": [signature("other.task")]}, ("chain",)),
        ({"chord": chord(group(signature("a.task")), signature("b.task")).body}, ("chord",)),
        ({"time_limit": 10}, ("timelimit",)),
        ({"soft_time_limit": 10}, ("timelimit",)),
        ({"stamped_headers": ["tenant"], "tenant": "t-1"}, ("stamps",)),
        ({}, ()),
    ],
    ids=lambda value: next(iter(value), "none") if isinstance(value, dict) else "",
)
def test_options_without_effect_are_listed_and_the_job_runs(option: dict[str, Any], names: tuple[str, ...]) -> None:
    assert accepted(stock(ignore_result=True, **option)).ignored == names


def test_a_producer_that_may_wait_for_a_result_is_told_of() -> None:
    # Celery sets reply_to in every message, and nobody ever answers.
    assert accepted(stock()).ignored == ("reply_to",)


def test_another_task_is_refused_by_name_and_keeps_its_arguments() -> None:
    raw = stock(kwargs={"conversation_id": "c-1"}, task_id="job-1").replace(TASK_NAME.encode(), b"moderation.unlock")
    found = refused(raw)
    assert found.problem.type is ProblemType.UNKNOWN_TASK
    assert found.problem.detail == f"task: must be {TASK_NAME}, and is 'moderation.unlock'."
    assert (found.id, found.subject, found.echo) == ("job-1", "c-1", {"conversation_id": "c-1"})


def test_a_python_datetime_is_refused_as_no_string() -> None:
    found = refused(stock(kwargs={"conversation_id": "c-1", "requested_at": NOW}))
    assert "requested_at: is no string; it must be a string with an RFC 3339 time" in found.problem.detail


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_pickled_message_is_refused_and_never_unpickled(protocol: int) -> None:
    found = refused(stock(protocol=protocol, kwargs={"conversation_id": Bomb()}, serializer="pickle", task_id="job-1"))
    assert found.problem.type is ProblemType.UNDECODABLE
    assert found.problem.detail.startswith("content-type: must be application/json, and is 'application/x-python-ser")
    # Protocol 1 keeps the id in the body, which is not opened.
    assert (found.id == "job-1") is (protocol == 2)


class Bomb:
    """Goes off where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)
