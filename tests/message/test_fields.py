"""Each field of a job has its type and its limit; everything wrong is named at once, with the mend."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.job import MAX_METADATA_BYTES, Job
from tasks.outcome import ProblemType
from tests.message.messages import ABSENT, accepted, as_base64, made, refused, with_fields


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def metadata_of(size: int) -> dict[str, str]:
    return {"a": "x" * (size - len('{"a":""}'))}


VALID: dict[str, list[Any]] = {
    "conversation_id": [
        "c",
        "i" * 256,
        "会" * 256,
        "../x",
        "a/b?c#d",
        "...",
        " ",
        "%2E%2E",
        "a\u2028b",
        "a\u200bb",
        "\N{SMILING FACE WITH SMILING EYES}",
        0,
        10**255,
    ],
    "reason": [None, "", "r" * 1000, "line\nbreak"],
    "rule_id": [None, "", "r" * 128],
    "policies": [None, [], ["p" * 128] * 20],
    "actor": [None, "", "a" * 128],
    "correlation_id": [None, "", "c" * 128],
    "requested_at": [None, "2026-11-22T15:04:05Z", "2026-11-22t15:04:05.123456789+05:30", "2016-12-31T23:59:60Z"],
    "dry_run": [None, True, False],
    "metadata": [None, {}, {"": [1, 2.5, None, "\N{SMILING FACE WITH SMILING EYES}"]}],
}
INVALID: dict[str, list[Any]] = {
    "conversation_id": [
        ABSENT,
        None,
        "",
        "i" * 257,
        ".",
        "..",
        "a\nb",
        "\x00",
        "\x7f",
        "a\x85b",
        True,
        1.5,
        ["c-1"],
        {"id": "c-1"},
    ],
    "reason": ["r" * 1001, 1, ["r"], True],
    "rule_id": ["r" * 129, 17, {}],
    "policies": ["spam", ["p"] * 21, ["p" * 129], [1], [None], {"0": "spam"}],
    "actor": ["a" * 129, 7, []],
    "correlation_id": ["c" * 129, 1.5, False],
    "requested_at": [1795359845, True, ["2026-11-22T15:04:05Z"]],
    "dry_run": ["true", 1, 0, "", []],
    "metadata": ["{}", [], [["a", 1]], 1],
    "dryrun": [True],
    "conversationId": ["c-1"],
    "": [None],
}
# Where a published schema cannot say it all.
INVALID_BEYOND_THE_SCHEMA: dict[str, list[Any]] = {
    "conversation_id": [10**256, 1.0],
    "requested_at": [
        "",
        "2026-11-22",
        "2026-11-22T15:04:05",
        "2026-11-22 15:04:05Z",
        "2026-11-22T15:04:05Z\n",
        "2026-02-30T15:04:05Z",
        "2026-11-22T24:04:05Z",
        "٢٠٢٦-11-22T15:04:05Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        f"2026-11-22T15:04:05.{'0' * 5000}Z",
    ],
    "metadata": [metadata_of(MAX_METADATA_BYTES + 1), {"a": "x" * 9 * 1024}, {"a": "会" * 2730}, nested(33)],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}={json.dumps(value)[:40] if value is not ABSENT else 'absent'}-{index}")
        for name, values in table.items()
        for index, value in enumerate(values)
    ]


@pytest.mark.parametrize(("name", "value"), cases(VALID))
def test_a_field_within_its_limits_is_accepted_and_told_as_received(name: str, value: Any) -> None:
    found = accepted(with_fields(**{name: value}))
    assert found.received_fields[name] == (str(value) if name == "conversation_id" else value)


@pytest.mark.parametrize(("name", "value"), cases(INVALID) + cases(INVALID_BEYOND_THE_SCHEMA))
def test_a_field_beyond_its_limits_is_refused_by_name(name: str, value: Any) -> None:
    found = refused(with_fields(**{name: value}))
    assert found.problem.type is ProblemType.INVALID_JOB
    named = f"{name}: " if name in Job.model_fields else f"{name!r}: there is no such field; "
    assert found.problem.detail.startswith(named)
    assert found.problem.detail.isprintable()
    assert (found.subject is None) == (name == "conversation_id")


def test_only_the_fields_of_the_contract_exist() -> None:
    assert list(Job.model_fields) == list(VALID)


def test_metadata_of_exactly_eight_kibibytes_or_32_levels_is_given_back_unchanged() -> None:
    for metadata in (metadata_of(MAX_METADATA_BYTES), nested(32), {"n": 10**300, "f": 1e300}):
        for body in (
            [[], {"conversation_id": "c-1", "metadata": metadata}],
            [[{"conversation_id": "c-1", "metadata": metadata}]],
        ):
            found = accepted(made(body))
            assert found.job.metadata == found.received_fields["metadata"] == metadata


def test_a_number_of_metadata_counts_with_all_its_digits() -> None:
    body = '[[], {"conversation_id": "c-1", "metadata": {"n": 0.%s}}, {}]'

    assert accepted(made(as_base64((body % ("1" * 8000)).encode())))
    problem = refused(made(as_base64((body % ("1" * MAX_METADATA_BYTES)).encode()))).problem
    assert problem.detail.startswith("metadata: is too large; ")


def test_a_number_of_many_digits_makes_no_large_event_of_a_bad_job() -> None:
    body = '[[], {"conversation_id": "c-1", "unknown": 0.%s}, {}]'

    assert refused(made(as_base64((body % ("1" * 8000)).encode()))).received_fields is not None
    assert refused(made(as_base64((body % ("1" * 20_000)).encode()))).received_fields is None


def test_requested_at_is_a_moment() -> None:
    job = accepted(with_fields(requested_at="2016-12-31T18:59:60-05:00")).job
    assert job.requested_at == datetime(2017, 1, 1, tzinfo=UTC)


def test_every_wrong_field_is_named_with_its_mend_and_without_its_value() -> None:
    found = refused(
        with_fields(reason="secret" * 200, policies=["p"] * 21, dry_run="yes", dryrun=True, metadata=nested(33))
    )
    assert found.problem.detail == (
        "reason: must be a string of at most 1,000 characters, and is a string of 1,200 characters. "
        "policies: must be a list of at most 20 strings of at most 128 characters each, and is a list of 21 values. "
        "dry_run: must be true or false, and is a string of 3 characters. "
        "metadata: is nested too deep; it must be an object of at most 8,192 bytes as JSON and at most 32 levels. "
        "'dryrun': there is no such field; dry_run may be meant."
    )


def test_a_refusal_is_short_whatever_the_fields_are_called() -> None:
    found = refused(with_fields(**{f"{index}{'x' * 800}": 1 for index in range(900)}))
    assert len(found.problem.detail) < 2000
    assert found.problem.detail.endswith("890 more fields are wrong.")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("conversationId", "conversation_id"),
        ("conversation-id", "conversation_id"),
        ("ConversationID", "conversation_id"),
        ("CONVERSATION_ID", "conversation_id"),
        ("ruleId", "rule_id"),
        ("dry-run", "dry_run"),
        ("requestedAt", "requested_at"),
        ("correlationid", "correlation_id"),
        ("Policies", "policies"),
        ("policys", "policies"),
        ("meta_data", "metadata"),
        ("reasons", "reason"),
    ],
)
def test_a_misspelt_field_is_reported_beside_the_likely_one(name: str, meant: str) -> None:
    found = refused(with_fields(**{name: 1}))
    assert found.problem.detail == f"{name!r}: there is no such field; {meant} may be meant."


def test_every_field_in_another_spelling_is_reported_beside_the_right_one() -> None:
    names = ["conversationId", "ruleId", "correlationId", "requestedAt", "dryRun", "Reason", "Actor", "Policies"]
    assert refused(with_fields(**dict.fromkeys(names, 1))).problem.detail.count(" may be meant.") == len(names)


def test_a_long_name_of_a_field_is_reported_whole() -> None:
    name = "identifier_of_the_moderated_conversation_in_the_legacy_system"
    assert refused(with_fields(**{name: 1})).problem.detail == f"{name!r}: there is no such field; remove it."


def test_a_refused_job_is_reported_as_received_up_to_16_kibibytes() -> None:
    fields: dict[str, Any] = {"reason": None, "dryrun": 1, "conversation_id": 7, "metadata": {"a": [1]}}
    assert refused(made([[], fields])).received_fields == {**fields, "conversation_id": "7"}
    room = 16 * 1024 - len('{"reason":""}')
    assert refused(made([[], {"reason": "x" * room}])).received_fields == {"reason": "x" * room}
    assert refused(made([[], {"reason": "x" * (room + 1)}])).received_fields is None


def test_a_refused_job_without_an_own_id_is_not_remembered() -> None:
    found = refused(made([[], {"conversation_id": "c-1", "dryrun": True}], headers={"id": ABSENT}))
    assert (found.subject, found.fingerprint) == ("c-1", None)


@pytest.mark.parametrize(
    ("said", "is_dry_run"),
    [({"dry_run": True}, True), ({"dry_run": "true"}, False), ({"dryrun": True}, False), ({}, False)],
)
def test_a_refused_message_is_a_dry_run_only_if_it_says_so(said: dict[str, Any], *, is_dry_run: bool) -> None:
    assert refused(made([[], {"conversation_id": "c-1", "rule": "r-1", **said}])).is_dry_run is is_dry_run


def test_a_job_knows_whether_it_is_a_dry_run() -> None:
    assert accepted(made([[], {"conversation_id": "c-1", "dry_run": True}])).is_dry_run
    assert not accepted(made([[], {"conversation_id": "c-1"}])).is_dry_run
