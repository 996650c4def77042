"""No message, whatever its bytes, escapes: it ends as a job, or as a refusal whose event can be published and read."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any, NoReturn

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import event
from tasks.job import MAX_METADATA_BYTES
from tasks.message import Accepted, Message, Rejection
from tasks.outcome import Locked, Rejected
from tasks.parse import parse
from tasks.task_name import TASK_NAME
from tests.message.messages import NOW, QUEUE, made, read, stock

EXCERPT = 40
NAME = re.compile(r"'[\w.:/+-]{1,128}'")
"""A name may be told whole."""
MESSAGES = [
    stock(task_id="job-1", kwargs={"conversation_id": "c-1", "metadata": {"a": [1.5, None]}}),
    stock("c-1", task_id="job-2", protocol=1, eta=NOW, expires=NOW),
    stock("c-1", task_id="job-3", compression="gzip"),
    stock("c-1", task_id="job-4", body_encoding="utf-8"),
    made([["c-1"]], headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}),
]

characters = st.characters() | st.sampled_from("\ud800\udfff\x00\u2028\N{SMILING FACE WITH SMILING EYES}")
texts = st.text(characters, max_size=60) | st.sampled_from(
    ["c-1", TASK_NAME, QUEUE, "2026-11-22T15:04:05Z", "gzip", "." * 300]
)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -1, 1e308])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real message with some of its bytes cut out, doubled or replaced."""
    raw = draw(st.sampled_from(MESSAGES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.integers(start, min(len(raw), start + 20)))
        patch = draw(
            st.binary(max_size=8)
            | st.just(raw[start:end] * 2)
            | st.sampled_from([b'"', b"{", b"[", b"\\ud800", b"NaN"])
        )
        raw = raw[:start] + patch + raw[end:]
    return raw


@st.composite
def rebuilt(draw: st.DrawFn) -> bytes:
    """A real message with any values in the place of its own, outside or in its body."""
    message = json.loads(draw(st.sampled_from(MESSAGES)))
    encoding = message["properties"].get("body_encoding")
    if "compression" not in message["headers"]:
        text = base64.b64decode(message["body"]) if encoding == "base64" else message["body"]
        body = draw(st.just(json.loads(text)) | values)
        for _ in range(draw(st.integers(0, 3))):
            body = draw(with_another_value(body))
        message["body"] = json.dumps(body)
        if encoding == "base64":
            message["body"] = base64.b64encode(message["body"].encode()).decode()
    for _ in range(draw(st.integers(0, 3))):
        message = draw(with_another_value(message))
    return json.dumps(message).encode()


@st.composite
def with_another_value(draw: st.DrawFn, value: Any) -> Any:
    """The value with another one somewhere in it."""
    if isinstance(value, dict):
        name = draw(st.sampled_from(list(value)) | texts) if value else draw(texts)
        return {**value, name: draw(with_another_value(value.get(name)))}
    if isinstance(value, list) and value:
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], draw(with_another_value(value[index])), *value[index + 1 :]]
    return draw(values)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000) | damaged() | rebuilt())
def test_any_bytes_end_as_an_event_that_can_be_read(raw: bytes) -> None:
    message = read(raw)
    intake = parse(message)
    check_event(intake, raw)
    assert 0 < len(intake.id) <= 128
    assert intake.id.isprintable()
    if isinstance(intake, Rejection):
        detail = intake.problem.detail
        assert detail.isprintable()
        assert len(detail) < 3000
        detail = NAME.sub("", detail)
        assert not quotes(detail, raw.decode(errors="replace"))
        if isinstance(message, Message):
            assert not quotes(detail, json.dumps([message.args, message.kwargs], ensure_ascii=False))


@settings(max_examples=300, deadline=None)
@given(st.lists(values, max_size=3), st.dictionaries(texts, values, max_size=4))
def test_any_arguments_end_as_an_event_that_can_be_read(args: list[Any], kwargs: dict[str, Any]) -> None:
    """Arguments that no message can hold, too: ``parse`` leans on nobody having looked before."""
    message = Message("job-1", True, args, kwargs, None, None, None, None, ())  # noqa: FBT003 - its first five fields
    intake = parse(message)
    if isinstance(intake, Rejection):
        check_event(intake, b"")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(texts, values, max_size=4))
def test_accepted_metadata_comes_back_unchanged(metadata: dict[str, Any]) -> None:
    intake = parse(read(made([[], {"conversation_id": "c-1", "metadata": metadata}])))
    if isinstance(intake, Accepted):
        body = json.loads(build(intake).body)
        assert body["data"]["job"]["metadata"] == metadata
        assert len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()) < MAX_METADATA_BYTES + 100


def check_event(intake: Accepted | Rejection, raw: bytes) -> None:
    made_event = build(intake)
    json.loads(made_event.body, parse_constant=no_constant)
    read_back = event.ResultEvent.model_validate_json(made_event.body)
    assert read_back.id == read_back.data.job_id == intake.id == made_event.id
    assert len(made_event.body) < len(raw) * 6 + 40_000


def build(intake: Accepted | Rejection) -> event.Event:
    facts = event.Facts(
        id=intake.id,
        subject=intake.subject,
        received_fields=intake.received_fields,
        replay_of=intake.replay_of,
        received_at=NOW,
        finished_at=datetime.now(UTC),
        attempts=0,
    )
    if isinstance(intake, Rejection):
        return event.build(facts, Rejected(intake.problem))
    return event.build(facts, Locked({"id": intake.subject, "locked": True}))


def quotes(detail: str, text: str) -> bool:
    """Whether the detail holds a piece of the text that is long enough to give something away."""
    return any(detail[start : start + EXCERPT] in text for start in range(len(detail) - EXCERPT + 1))


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")
