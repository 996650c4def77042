"""The job id is the producer's; where there is none, or none that can be used, one is derived from the bytes."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from tasks.job import idempotency_key
from tasks.outcome import ProblemType
from tests.message.messages import ABSENT, JOB_ID, accepted, made, refused

DERIVED = re.compile(r"anonymous-[0-9a-f]{16}-[0-9a-f]{16}")


def by_protocol(job_id: Any) -> list[bytes]:
    """The same job in protocol 2 and in protocol 1."""
    body = {"task": "moderation.lock_conversation", "id": job_id, "args": ["c-1"], "kwargs": {}}
    if job_id is ABSENT:
        del body["id"]
    return [made(headers={"id": job_id}), made(headers={"task": ABSENT, "id": ABSENT}, body=body)]


@pytest.mark.parametrize(
    ("job_id", "kept"),
    [
        pytest.param("x", "x", id="one character"),
        pytest.param("i" * 128, "i" * 128, id="128 characters"),
        pytest.param("锁定会话-42", "锁定会话-42", id="Chinese"),
        pytest.param("two words", "two words", id="with a blank"),
        pytest.param(42, "42", id="integer"),
        pytest.param(-1, "-1", id="negative integer"),
        pytest.param(0, "0", id="zero"),
    ],
)
def test_a_usable_id_is_kept(job_id: Any, kept: str) -> None:
    for raw in by_protocol(job_id):
        found = accepted(raw)
        assert (found.id, found.fingerprint) == (kept, "c-1")


@pytest.mark.parametrize("job_id", [ABSENT, None], ids=["absent", "null"])
def test_a_job_without_an_id_runs_under_a_derived_one_and_is_never_remembered(job_id: Any) -> None:
    for raw in by_protocol(job_id):
        found = accepted(raw)
        assert DERIVED.fullmatch(found.id)
        assert found.fingerprint is None


@pytest.mark.parametrize(
    "job_id",
    [
        pytest.param("", id="empty"),
        pytest.param("i" * 129, id="129 characters"),
        pytest.param("one\ntwo", id="line break"),
        pytest.param("\x00", id="NUL"),
        pytest.param("a\u2028b", id="line separator"),
        pytest.param(10**128, id="129 digits"),
        pytest.param(True, id="bool"),
        pytest.param(1.5, id="float"),
        pytest.param(["a"], id="list"),
        pytest.param({"id": "a"}, id="object"),
    ],
)
def test_an_id_that_cannot_be_used_is_refused_under_a_derived_one(job_id: Any) -> None:
    for raw in by_protocol(job_id):
        found = refused(raw)
        assert found.problem.type is ProblemType.INVALID_JOB
        assert found.problem.detail.startswith("id: must be 1 to 128 printable characters, and is ")
        assert found.problem.detail.isprintable()
        assert DERIVED.fullmatch(found.id)
        assert (found.fingerprint, found.subject, found.received_fields) == (None, "c-1", {"conversation_id": "c-1"})


def test_derived_ids_tell_equal_bytes_and_are_never_the_same() -> None:
    raw, other = made(headers={"id": ABSENT}), made(headers={"id": ABSENT, "retries": 1})
    first, second, third = (accepted(each).id for each in (raw, raw, other))
    assert first != second
    assert first[:27] == second[:27] != third[:27]


def test_a_body_that_cannot_be_read_keeps_the_id_in_the_headers() -> None:
    found = refused(made("!"))
    assert (found.id, found.fingerprint, found.subject, found.received_fields) == (JOB_ID, "", None, None)


@pytest.mark.parametrize("job_id", ["x", "two words", "!~", JOB_ID, "i" * 128])
def test_an_id_that_a_header_can_hold_is_the_idempotency_key(job_id: str) -> None:
    assert idempotency_key(job_id) == job_id


@pytest.mark.parametrize("job_id", [" x", "x ", "锁定", "a\u00a0b", " "])
def test_any_other_id_gives_the_same_uuid_as_key_for_ever(job_id: str) -> None:
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, "https://api.managem.co.uk/conversations")
    assert idempotency_key(job_id) == str(uuid.uuid5(namespace, job_id))
