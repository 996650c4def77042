"""Bytes that are no message, or one that two readers could understand differently, are refused with a mend."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
import zlib
from typing import Any

import pytest

from tasks.outcome import ProblemType
from tests.message.messages import ABSENT, JOB_ID, accepted, as_base64, made, refused

MIB = 1024 * 1024
JUNK = bytes(range(256)) * (5 * MIB // 256)


def plain(text: str) -> bytes:
    """A message whose body is this text."""
    return made(as_base64(text.encode()))


def gzipped(data: bytes) -> bytes:
    return made(as_base64(data), headers={"compression": "gzip"})


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        pytest.param(b"", "The message is empty.", id="empty string"),
        pytest.param(b" \n", "The message is empty.", id="blanks"),
        pytest.param(b"lock c-1", "The message is not JSON (character 0: ", id="not JSON"),
        pytest.param(b"\xff\xfe{}", "The message is not UTF-8 (byte 0).", id="not UTF-8"),
        pytest.param(JUNK, "The message has 5,242,880 bytes and was not read; ", id="5 MB of junk"),
        pytest.param(b"[]", "The message is an empty list; ", id="list"),
        pytest.param(b'"c-1"', "The message is a string of 3 characters; ", id="string"),
        pytest.param(made(headers="x"), "headers: must be an object, and is a string of 1 character.", id="headers"),
        pytest.param(made(headers=[1]), "headers: must be an object, and is a list of 1 value.", id="headers list"),
        pytest.param(made(properties=7), "properties: must be an object, and is a number.", id="properties"),
        pytest.param(made(content_type="application/x-python-serialize"), "content-type: must be ", id="pickle"),
        pytest.param(made(content_type="application/data"), "content-type: must be ", id="data"),
        pytest.param(
            made(content_type=["json"]), "content-type: must be a string, and is a list", id="content-type list"
        ),
        pytest.param(made(content_encoding="latin-1"), "content-encoding: must be utf-8 (or ", id="latin-1"),
        pytest.param(made(content_encoding="utf-16"), "content-encoding: must be utf-8 (or ", id="utf-16"),
        pytest.param(
            made(as_base64("[['é']]".encode("latin-1")), content_encoding="binary"),
            "The body is not UTF-8 (byte 3).",
            id="another alphabet, called binary",
        ),
        pytest.param(made(headers={"compression": "application/x-bz2"}), "headers.compression: must be ", id="bzip2"),
        pytest.param(made(headers={"compression": "xz"}), "headers.compression: must be ", id="xz"),
        pytest.param(made(headers={"compression": "gzip"}), "body: is not compressed as ", id="not compressed"),
        pytest.param(
            gzipped(gzip.compress(b"[]", mtime=0)[:-4]), "body: the compressed data is cut off", id="gzip cut off"
        ),
        pytest.param(gzipped(zlib.compress(b"[]") + b"x"), "body: the compressed data is cut off", id="gzip and more"),
        pytest.param(made(properties={"body_encoding": "hex"}), "properties.body_encoding: must be base64", id="hex"),
        pytest.param(made("!"), "body: is not base64; ", id="body not base64"),
        pytest.param(
            made('[["c-1"]]', headers={"compression": "gzip"}, properties={"body_encoding": "utf-8"}),
            "body: is not compressed as ",
            id="plain body not compressed",
        ),
        pytest.param(made('[["c-1"]]'), "body: is not base64; ", id="plain body said to be base64"),
        pytest.param(made("会"), "body: is not base64; ", id="body not ASCII"),
        pytest.param(made(as_base64(b"\xff")), "The body is not UTF-8 (byte 0).", id="body not UTF-8"),
        pytest.param(plain("lock c-1"), "The body is not JSON (character 0: ", id="body not JSON"),
        pytest.param(plain(""), "The body is empty.", id="body empty"),
        pytest.param(
            plain('"c-1"'), "The body must be [args, kwargs, options] or an object, and is a ", id="body string"
        ),
        pytest.param(plain("[1, 2, 3, 4]"), "The body must be [args, kwargs, options] or ", id="body of four"),
        pytest.param(plain('[["a\nb"]]'), "The body is not JSON (character 4: ", id="raw line break in a string"),
        pytest.param(plain('[["\\ud800"]]'), "The body holds half a surrogate pair", id="lone surrogate"),
        pytest.param(plain('[[], {"\\uDFFF": 1}]'), "The body holds half a surrogate pair", id="surrogate in a key"),
        pytest.param(plain('[[], {"metadata": [NaN]}]'), "The body holds NaN, ", id="NaN"),
        pytest.param(plain('[[], {"metadata": [-Infinity]}]'), "The body holds -Infinity, ", id="infinity"),
        pytest.param(plain('[[], {"metadata": [1e999]}]'), "The body holds a number too large ", id="1e999"),
        pytest.param(plain(f"[[{'9' * 5000}]]"), "The body holds an integer with too many digits.", id="5,000 digits"),
        pytest.param(plain('[[], {"a": 1, "a": 1}]'), "The body holds the key 'a' twice in one object", id="twice"),
        pytest.param(plain(nested(37)), "The body is nested deeper than 36 levels; flatten it.", id="37 levels"),
        pytest.param(plain(nested(5000)), "The body is nested deeper than 36 levels; ", id="5,000 levels"),
        pytest.param(plain('{"a":' * 5000), "The body is nested deeper than 36 levels; ", id="5,000 levels, open"),
        pytest.param(
            nested(5000).encode(), "The message is nested deeper than 36 levels; ", id="message of 5,000 levels"
        ),
        pytest.param(b'{"id": 1, "id": 2}', "The message holds the key 'id' twice in one object", id="key twice"),
        pytest.param(b'{"id": "\\ud800"}', "The message holds half a surrogate pair", id="surrogate in the message"),
    ],
)
def test_a_message_that_cannot_be_read_is_refused_with_a_reason(raw: bytes, detail: str) -> None:
    found = refused(raw)
    assert found.problem.type is ProblemType.UNDECODABLE
    assert found.problem.detail.startswith(detail)
    assert (found.subject, found.received_fields) == (None, None)
    assert len(found.problem.detail) < 500
    assert found.fingerprint == ("" if found.id == JOB_ID else None)


@pytest.mark.parametrize("body", [None, 7, True], ids=["null", "number", "bool"])
def test_a_body_must_be_a_string(body: Any) -> None:
    message = json.loads(made())
    message["body"] = body
    expected = "The message has no body. " if body is None else "body: must be a string, and is "
    assert refused(json.dumps(message).encode()).problem.detail.startswith(expected)


def test_a_missing_body_is_refused_under_the_messages_id() -> None:
    message = json.loads(made())
    del message["body"]
    found = refused(json.dumps(message).encode())
    assert found.problem.detail.startswith("The message has no body. ")
    assert found.id == JOB_ID


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        pytest.param(
            b'{"conversation_id": "c-3"}', "The message has no body, but a job's fields in its place. ", id="job"
        ),
        pytest.param(b'{"args": ["c-3"], "task": "x"}', "The message has no body. ", id="protocol 1 without a message"),
        pytest.param(b"{}", "The message has no body. ", id="empty object"),
        pytest.param(b'[[], {"conversation_id": "c-3"}]', "The message is a list of 2 values; ", id="body alone"),
        pytest.param(b'"c-3"', "The message is a string of 3 characters; ", id="string"),
        pytest.param(b"c-3", "The message is not JSON (character 0: ", id="text"),
        pytest.param(b"42", "The message is a number; ", id="number"),
        pytest.param(b"null", "The message is null; ", id="null"),
        pytest.param(b"", "The message is empty. ", id="nothing"),
        pytest.param(b"W1tdLCB7fV0=", "The message is not JSON (character 0: ", id="base64"),
        pytest.param(b"\x80\x04}.", "The message is not UTF-8 (byte 0). ", id="pickle"),
    ],
)
def test_who_pushes_something_else_than_a_message_is_answered_what_to_push(raw: bytes, said: str) -> None:
    found = refused(raw)
    assert found.problem.type is ProblemType.UNDECODABLE
    assert found.problem.detail.startswith(said)
    advice, _, example = found.problem.detail.partition("messages such as ")
    assert advice.endswith("Send jobs with a Celery client or `lock-worker enqueue`, or push ")
    assert accepted(example.encode()).job.conversation_id == "c-42"
    assert found.problem.detail.isprintable()


def test_a_job_that_is_no_message_is_reported_as_it_was_understood() -> None:
    found = refused(b'{"conversation_id": "c-3", "reason": "spam"}')
    assert (found.subject, found.received_fields) == ("c-3", {"conversation_id": "c-3", "reason": "spam"})
    assert found.fingerprint is None


def test_the_beginning_of_a_message_that_is_too_large_is_not_read() -> None:
    found = refused(made()[: 64 * 1024], true_size=MIB + 1)
    assert found.problem.detail == "The message has 1,048,577 bytes and was not read; send at most 1,048,576."
    assert found.id.startswith("anonymous-")


def test_a_message_of_one_mebibyte_is_read() -> None:
    room = MIB - len(made(headers={"padding": ""}))
    raw = made(headers={"padding": "x" * room})
    assert len(raw) == MIB
    assert accepted(raw).subject == "c-1"
    assert refused(raw + b" ").problem.detail.startswith("The message has 1,048,577 bytes")


def test_a_body_of_one_mebibyte_may_be_compressed() -> None:
    body = b'[["c-1"]]'.ljust(MIB)
    assert accepted(gzipped(gzip.compress(body, mtime=0))).subject == "c-1"
    assert refused(gzipped(gzip.compress(body + b" ", mtime=0))).problem.detail.startswith(
        "body: has more than 1,048,576 bytes"
    )


def test_a_gzip_bomb_is_not_inflated_beyond_the_limit() -> None:
    bomb = gzipped(gzip.compress(bytes(100 * MIB), mtime=0))
    tracemalloc.start()
    try:
        detail = refused(bomb).problem.detail
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert detail == "body: has more than 1,048,576 bytes once decompressed; send less."
    assert peak < 8 * MIB


def test_deep_nesting_is_refused_however_deep_the_stack_is() -> None:
    def at_depth(frames: int) -> str:
        return refused(plain(nested(5000))).problem.detail if frames == 0 else at_depth(frames - 1)

    assert at_depth(sys.getrecursionlimit() // 2).startswith("The body is nested deeper than 36 levels")


def test_a_lone_surrogate_beside_the_job_is_refused_too() -> None:
    raw = made(headers={"origin": ABSENT}).replace(b'"headers": {', b'"headers": {"origin": "\\ud83d", ')
    assert refused(raw).problem.detail.startswith("The message holds half a surrogate pair")
