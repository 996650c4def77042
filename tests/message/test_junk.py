"""A message of up to a mebibyte is refused in bounded time and memory, whatever it holds, and its refusal is short.

How long one takes is not asserted; what would take long is: objects, errors and names that nobody reads.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from tasks.job import Job
from tasks.outcome import ProblemType
from tasks.task_name import TASK_NAME
from tests.message.messages import JOB_ID, accepted, as_base64, made, refused, with_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.message import Rejection

MIB = 1024 * 1024
ROOM = 600_000
"""What a body may have so that its message is below a mebibyte, in base64 or with many backslashes."""


def filled(unit: str, size: int = ROOM) -> str:
    """So much of a list."""
    return f"[{unit}{f',{unit}' * (size // (len(unit) + 1))}]"


def with_field(name: str, value: str) -> bytes:
    """A job whose field is this JSON text."""
    return plain(f'[[], {{"conversation_id": "c-1", "{name}": {value}}}, {{}}]')


def plain(body: str) -> bytes:
    return made(body, properties={"body_encoding": "utf-8"})


def in_base64(body: str) -> bytes:
    return made(as_base64(body.encode()))


def compressed(body: str) -> bytes:
    return made(as_base64(gzip.compress(body.encode(), mtime=0)), headers={"compression": "gzip"})


def peak_of(call: Callable[[], Rejection]) -> tuple[Rejection, int]:
    tracemalloc.start()
    try:
        found = call()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


MANY_FIELDS = ",".join(f'"{number}":1' for number in range(75_000))


@pytest.mark.parametrize("written", [plain, in_base64, compressed])
def test_of_many_unknown_fields_ten_are_reported_and_the_others_counted(written: Callable[[str], bytes]) -> None:
    raw = written(f'[[], {{"conversation_id": "c-1", {MANY_FIELDS}}}, {{}}]')
    found, peak = peak_of(lambda: refused(raw))
    assert found.problem.type is ProblemType.INVALID_JOB
    assert found.problem.detail.startswith("'0': there is no such field; remove it. '1': there is no such field; ")
    assert found.problem.detail.endswith("'9': there is no such field; remove it. 74,990 more fields are wrong.")
    assert (found.id, found.subject, found.fingerprint, found.received_fields) == (JOB_ID, "c-1", "c-1", None)
    assert peak < 30 * MIB


@pytest.mark.parametrize("policy", ["1", '""', "null", "1.5"])
def test_of_many_policies_the_field_is_reported_once(policy: str) -> None:
    raw = with_field("policies", filled(policy))
    found, peak = peak_of(lambda: refused(raw))
    count = len(json.loads(filled(policy)))
    assert found.problem.detail == (
        "policies: must be a list of at most 20 strings of at most 128 characters each, "
        f"and is a list of {count:,} values."
    )
    assert (found.id, found.subject) == (JOB_ID, "c-1")
    assert peak < 30 * MIB


@pytest.mark.parametrize("name", list(Job.model_fields))
@pytest.mark.parametrize("unit", ["1", '"a"', '[1,2,3,4,"",0,1,2,3,4,5,6,7,8,9]'])
def test_a_field_full_of_values_is_refused_by_name(name: str, unit: str) -> None:
    raw = plain(f'[[], {{"{name}": {filled(unit)}}}, {{}}]')
    found = refused(raw)
    assert found.problem.detail.partition(f"{name}: ")[2].startswith(("must be ", "is no string; it must be "))
    assert found.received_fields is None


def test_metadata_full_of_fields_is_too_large() -> None:
    for value in (f"{{{MANY_FIELDS}}}", f'{{"a": {filled("0")}}}', f'{{"a": {filled("{}", 20_000)}}}'):
        assert refused(with_field("metadata", value)).problem.detail.startswith("metadata: is too large; ")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(plain(f"[[], {{}}, {filled('{}')}]"), id="options"),
        pytest.param(plain(filled("[]")), id="body"),
        pytest.param(with_field("policies", filled("{}")), id="policies"),
        pytest.param(with_field("metadata", f'{{"a": {filled("[" * 33 + "]" * 33)}}}'), id="metadata"),
        pytest.param(plain(f"[{filled('1')}]"), id="arguments"),
        pytest.param(
            with_fields().replace(b'"headers": {', b'"headers": {"a": ' + filled("{}").encode() + b","), id="headers"
        ),
        pytest.param(filled("{}", MIB - 100).encode(), id="message"),
        pytest.param(f'{{"body": {filled("[]", MIB - 100)}}}'.encode(), id="body that was never made a string"),
        pytest.param(f'{{"headers": {{{MANY_FIELDS}}}, "body": "[]"}}'.encode(), id="many headers"),
    ],
)
def test_a_message_full_of_values_is_refused_with_a_short_reason(raw: bytes) -> None:
    found, peak = peak_of(lambda: refused(raw))
    assert len(found.problem.detail) < 500
    assert found.received_fields is None
    assert peak < 12 * MIB


def test_a_good_job_beside_too_many_values_is_refused_for_them() -> None:
    for raw in (
        made(headers={"origin": [0] * 60_000}),
        made([[], {"conversation_id": "c-1"}, {"chord": [0] * 60_000}]),
        made([[], {"conversation_id": "c-1"}, {"chain": ["task"] * 60_000}]),
        made([[], {"conversation_id": "c-1"}, {"callbacks": [{"a": "b"}] * 40_000}]),
    ):
        found = refused(raw)
        assert found.problem.type is ProblemType.UNDECODABLE
        assert found.problem.detail.endswith(" holds more than 50,000 values; send the job's fields alone.")
        # What was not looked at for what no job may hold is not given back.
        assert (found.id, found.subject, found.received_fields) == (JOB_ID, "c-1", None)


def test_of_values_that_cannot_even_be_read_loosely_their_number_is_reported() -> None:
    for unit in ("NaN", '"\\ud800"', f"{'[' * 300}{']' * 300},{',1' * 10_000}", "x", "{}"):
        found = refused(plain(f"[[], {{}}, {filled(unit)}]"))
        assert found.problem.detail == "The body holds more than 50,000 values; send the job's fields alone."
        assert found.id == JOB_ID


@pytest.mark.parametrize("text", [",[{", '\\",', "\\\\,", '","', "{}" * 7 + '"', "\\", '\\"\\\\",'])
def test_a_long_text_is_one_value_whatever_it_says(text: str) -> None:
    long = text * (500_000 // len(json.dumps(text)))
    assert accepted(made(headers={"origin": long})).subject == "c-1"
    found = refused(with_fields(reason=long[:300_000]))
    assert found.problem.detail.startswith("reason: must be a string of at most 1,000 characters, and is a string of ")


def test_as_many_values_as_a_message_of_celery_may_have_are_read() -> None:
    signature: dict[str, Any] = {
        "task": "a.task",
        "args": [],
        "kwargs": {},
        "options": {"task_id": JOB_ID},
        "subtask_type": None,
    }
    chain = made([[], {"conversation_id": "c-1"}, {"chain": [signature] * 4000}])
    assert len(chain) > MIB * 0.6
    assert accepted(chain).ignored == ("chain",)
    job: dict[str, Any] = {"conversation_id": "c-1", "metadata": {"a": [0] * 4000}, "policies": ["p"] * 20}
    padded = json.dumps([[], job, {}]) + " " * 700_000
    assert accepted(plain(padded)).received_fields == job


def test_many_arguments_and_a_huge_number_are_reported_by_their_count_and_kind() -> None:
    assert refused(plain(f"[{filled('1')}, {{}}]")).problem.detail.startswith(
        "The job has 300,001 positional arguments; "
    )
    assert refused(plain(f"[[{'9' * 4000}]]")).problem.detail.endswith("and is a number.")
    for digits in ("9" * 5000, "9" * ROOM, f"0.{'9' * ROOM}e999", f"{'9' * ROOM}e9"):
        assert refused(plain(f"[[{digits}]]")).problem.detail.startswith("The body holds a")
    task = f'{{"task": "{"x" * ROOM}"}}'
    assert len(refused(f'{{"headers": {task}, "body": "[]"}}'.encode()).problem.detail) < 300
    assert TASK_NAME in refused(f'{{"headers": {task}, "body": "[]"}}'.encode()).problem.detail
