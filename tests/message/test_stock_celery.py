"""What Celery's own producers write is a job, with or without what has no effect here."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from celery import chord, group, signature
from kombu import Connection
from kombu.utils import json as kombu_json

from tasks.outcome import ProblemType
from tasks.task_name import TASK_NAME
from tests.message.messages import NOW, accepted, refused, stock

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
    [(encoding, compression) for encoding in ("base64", "utf-8", None) for compression in (None, "gzip", "zlib")],
)
def test_every_form_of_a_celery_message_is_the_same_job(
    protocol: int, body_encoding: str | None, compression: str | None
) -> None:
    raw = stock(kwargs=FIELDS, protocol=protocol, body_encoding=body_encoding, compression=compression, task_id="job-1")
    found = accepted(raw)
    assert (found.id, found.fingerprint, found.subject) == ("job-1", "c-1", "c-1")
    assert found.received_fields == FIELDS
    assert found.job.metadata == FIELDS["metadata"]
    assert found.job.requested_at == datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
    assert (found.not_before, found.expires_at, found.traceparent, found.replay_of) == (None, None, None, None)


@pytest.mark.parametrize("content_encoding", ["utf-8", "us-ascii", "binary", "base64", "ascii-8bit", "gzip", None, ""])
@pytest.mark.parametrize("body_encoding", ["base64", "utf-8", None])
@pytest.mark.parametrize("compression", [None, "gzip", "zlib"])
def test_a_body_is_what_stock_kombu_makes_of_it_whatever_its_content_encoding(
    content_encoding: str | None, body_encoding: str | None, compression: str | None
) -> None:
    message = json.loads(stock(kwargs=FIELDS, body_encoding=body_encoding, compression=compression))
    message["content-encoding"] = content_encoding
    raw = json.dumps(message).encode()
    with Connection("memory://") as connection:
        channel = connection.default_channel
        _, read_by_kombu, _ = channel.Message(kombu_json.loads(raw), channel=channel).decode()
    assert accepted(raw).received_fields == read_by_kombu == FIELDS


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


def test_a_producer_that_may_wait_for_a_result_is_reported() -> None:
    # Celery sets reply_to in every message, and nobody ever answers.
    assert accepted(stock()).ignored == ("reply_to",)


def test_another_task_is_refused_by_name_and_keeps_its_arguments() -> None:
    raw = stock(kwargs={"conversation_id": "c-1"}, task_id="job-1").replace(TASK_NAME.encode(), b"moderation.unlock")
    found = refused(raw)
    assert found.problem.type is ProblemType.UNKNOWN_TASK
    assert found.problem.detail == f"task: must be {TASK_NAME}, and is 'moderation.unlock'."
    assert (found.id, found.subject, found.received_fields) == ("job-1", "c-1", {"conversation_id": "c-1"})


UUID = uuid.UUID("6B1F1F4E-5F0E-4B6C-9D6A-0D9A8C1B2E3F")
UUID_TEXT = "6b1f1f4e-5f0e-4b6c-9d6a-0d9a8c1b2e3f"


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("conversation_id", UUID, UUID_TEXT),
        ("rule_id", UUID, UUID_TEXT),
        ("actor", UUID, UUID_TEXT),
        ("correlation_id", UUID, UUID_TEXT),
        ("reason", UUID, UUID_TEXT),
        ("policies", ["spam", UUID, NOW], ["spam", UUID_TEXT, "2026-11-22T15:04:05+00:00"]),
        ("requested_at", NOW, "2026-11-22T15:04:05+00:00"),
        (
            "requested_at",
            datetime(2026, 11, 22, 15, 4, 5, 678, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
            "2026-11-22T15:04:05.000678-05:30",
        ),
        ("conversation_id", NOW, "2026-11-22T15:04:05+00:00"),
        ("correlation_id", NOW.replace(tzinfo=None), "2026-11-22T15:04:05"),
    ],
)
def test_a_uuid_or_a_datetime_in_a_field_is_its_text(protocol: int, field: str, value: Any, text: Any) -> None:
    fields = {"conversation_id": "c-1", field: value}
    for raw in (stock(protocol=protocol, kwargs=fields), stock(fields, protocol=protocol)):
        found = accepted(raw)
        assert found.received_fields == {"conversation_id": "c-1", field: text}
        assert found.subject == found.fingerprint == found.received_fields["conversation_id"]
        if field == "requested_at":
            assert found.job.requested_at == value
        else:
            assert getattr(found.job, field) == text


def test_a_uuid_alone_is_the_conversation_and_as_task_id_it_is_the_job_id() -> None:
    found = accepted(stock(UUID, task_id=UUID))
    assert (found.id, found.subject, found.received_fields) == (UUID_TEXT, UUID_TEXT, {"conversation_id": UUID_TEXT})


def test_metadata_keeps_what_celery_made_of_a_uuid_or_a_datetime() -> None:
    found = accepted(stock(kwargs={"conversation_id": "c-1", "metadata": {"case": UUID, "at": [NOW]}}))
    assert found.received_fields["metadata"] == {
        "case": {"__type__": "uuid", "__value__": {"hex": UUID.hex}},
        "at": [{"__type__": "datetime", "__value__": "2026-11-22T15:04:05+00:00"}],
    }


def test_a_naive_datetime_in_a_field_of_times_is_refused_because_it_names_no_offset() -> None:
    found = refused(stock(kwargs={"conversation_id": "c-1", "requested_at": NOW.replace(tzinfo=None)}))
    assert found.problem.detail.startswith("requested_at: names no offset from UTC; it must be a string with an RFC 33")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (date(2026, 11, 22), "date"),
        (time(15, 4), "time"),
        (Decimal("1.5"), "Decimal"),
        (b"c-1", "bytes"),
        (b"\xff", "bytes"),
    ],
)
def test_any_other_python_value_is_refused_by_the_name_of_its_type(value: Any, said: str) -> None:
    told = f"a Python {said} as Celery's JSON writes it"
    found = refused(stock(kwargs={"conversation_id": "c-1", "rule_id": value}))
    assert found.problem.detail == f"rule_id: must be a string of at most 128 characters, and is {told}."
    assert refused(stock(value)).problem.detail.startswith(f"The positional argument is {told}; ")


@pytest.mark.parametrize(
    "value",
    [
        {"__type__": "uuid", "__value__": UUID.hex},
        {"__type__": "uuid", "__value__": {"hex": "6b1f"}},
        {"__type__": "uuid", "__value__": {"hex": 7}},
        {"__type__": "uuid", "__value__": {"int": 7}},
        {"__type__": "uuid"},
        {"__type__": "uuid", "__value__": {"hex": UUID.hex}, "more": 1},
        {"__type__": "datetime", "__value__": 1795359845},
        {"__type__": "datetime", "__value__": "c-1"},
        {"__type__": "str", "__value__": "c-1"},
        {"__type__": ["uuid"], "__value__": {"hex": UUID.hex}},
    ],
)
def test_what_only_looks_like_celerys_form_is_no_text(value: Any) -> None:
    for field in ("conversation_id", "reason", "correlation_id"):
        found = refused(stock(kwargs={"conversation_id": "c-1", field: value}))
        assert found.problem.type is ProblemType.INVALID_JOB
        assert found.problem.detail.startswith(f"{field}: must be ")


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
