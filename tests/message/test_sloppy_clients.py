"""Clients in other languages leave things out and mix things up: what can be understood is a job all the same."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from tasks.task_name import TASK_NAME
from tests.message.messages import ABSENT, JOB_ID, accepted, as_base64, encoded, made, stock

FIELDS = {"conversation_id": "c-1"}
PROTOCOL_1 = {"task": TASK_NAME, "id": JOB_ID, "args": [], "kwargs": FIELDS}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(made(properties={"delivery_info": ABSENT}), id="no delivery_info"),
        pytest.param(made(properties={"delivery_tag": ABSENT}), id="no delivery_tag"),
        pytest.param(made(properties={"delivery_info": {"exchange": "celery", "routing_key": "x"}}), id="exchange"),
        pytest.param(made(properties=ABSENT), id="no properties"),
        pytest.param(made(properties=[]), id="properties []"),
        pytest.param(made(properties={"body_encoding": ABSENT}), id="base64, not said"),
        pytest.param(made(json.dumps([[], FIELDS, {}]), properties=ABSENT), id="plain, not said"),
        pytest.param(made(json.dumps([[], FIELDS]), properties={"body_encoding": "UTF-8"}), id="plain, said"),
        pytest.param(made(" \n" + json.dumps([[], FIELDS]), properties={"body_encoding": None}), id="plain, indented"),
        pytest.param(made("\n".join(encoded([[], FIELDS])), properties={}), id="base64 in many lines"),
        pytest.param(made(body_=0), id="one more key"),
        pytest.param(made(content_type=ABSENT), id="no content-type"),
        pytest.param(made(content_type="Application/JSON; charset=utf-8"), id="content-type with a charset"),
        pytest.param(made(content_encoding=ABSENT), id="no content-encoding"),
        pytest.param(made(content_encoding="UTF-8"), id="content-encoding in capitals"),
        *(
            pytest.param(made(content_encoding=encoding), id=f"content-encoding {encoding}")
            for encoding in (
                "utf8",
                "us-ascii",
                "ascii",
                "binary",
                "BINARY",
                "ascii-8bit",
                "8bit",
                "base64",
                "gzip",
                "",
            )
        ),
        pytest.param(
            made(json.dumps([[], FIELDS]), properties={"body_encoding": "utf-8"}, content_encoding="binary"),
            id="plain, content-encoding binary",
        ),
        pytest.param(
            made(json.dumps([[], FIELDS]), properties={"body_encoding": "utf-8"}, content_encoding="base64"),
            id="plain, content-encoding base64",
        ),
        pytest.param(
            made(properties={"body_encoding": "utf-8"}, content_encoding="base64"),
            id="base64 as content-encoding alone says",
        ),
        pytest.param(made(headers={"retries": None}), id="retries null"),
        pytest.param(made(headers={"retries": "many"}), id="retries no number"),
        pytest.param(made(headers={"eta": None, "expires": None}), id="eta null"),
        pytest.param(made([[], FIELDS]), id="[args, kwargs]"),
        pytest.param(made([[], FIELDS, None]), id="[args, kwargs, null]"),
        pytest.param(made([[], FIELDS, []]), id="[args, kwargs, []]"),
        pytest.param(made([None, FIELDS]), id="[null, kwargs]"),
        pytest.param(made([{}, FIELDS]), id="[{}, kwargs]"),
        pytest.param(made([["c-1"], []]), id="[args, []]"),
        pytest.param(made([["c-1"], None]), id="[args, null]"),
        pytest.param(made([["c-1"]]), id="[args]"),
        pytest.param(made([[FIELDS], {}, {}]), id="one object"),
        pytest.param(made(headers=[], body=PROTOCOL_1), id="headers [], protocol 1"),
        pytest.param(made(headers=ABSENT, body=PROTOCOL_1), id="no headers, protocol 1"),
        pytest.param(made(headers={"task": None, "id": None}, body=PROTOCOL_1), id="empty headers, protocol 1"),
        pytest.param(made(body={"kwargs": FIELDS}), id="protocol 2 with a body of protocol 1"),
        pytest.param(
            made(headers={"compression": "gzip"}, body=as_base64(gzip.compress(b'[["c-1"]]', mtime=0))), id="gzip"
        ),
        pytest.param(made(headers={"compression": "zlib"}, body=as_base64(zlib.compress(b'[["c-1"]]'))), id="zlib"),
        pytest.param(
            made(headers={"compression": "application/x-gzip"}, body=as_base64(zlib.compress(b'[["c-1"]]'))),
            id="gzip as kombu means it",
        ),
        *(
            pytest.param(
                made(
                    as_base64(zlib.compress(b'[["c-1"]]')),
                    headers={"compression": "application/x-gzip"},
                    properties={"body_encoding": encoding},
                    content_encoding="base64",
                ),
                id=f"compressed, body_encoding {encoding}",
            )
            for encoding in ("base64", "utf-8", None)
        ),
    ],
)
def test_what_a_client_leaves_out_or_mixes_up_is_no_obstacle(raw: bytes) -> None:
    found = accepted(raw)
    assert (found.id, found.fingerprint, found.received_fields) == (JOB_ID, "c-1", FIELDS)


@pytest.mark.parametrize("body", [[[], FIELDS, {}], PROTOCOL_1], ids=["protocol 2", "protocol 1"])
def test_a_body_that_was_never_made_a_string_is_understood(body: Any) -> None:
    message = json.loads(made())
    message["body"] = body
    assert accepted(json.dumps(message).encode()).received_fields == FIELDS


@pytest.mark.parametrize("encoding", ["utf-8", None])
def test_a_compressed_body_as_kombu_writes_it_without_base64_is_understood(encoding: str | None) -> None:
    message = json.loads(made(headers={"compression": "zlib"}, properties={"body_encoding": encoding}))
    message["body"] = {"__type__": "base64", "__value__": as_base64(zlib.compress(b'[["c-1"]]'))}
    assert accepted(json.dumps(message).encode()).received_fields == FIELDS
    message["headers"].pop("compression")
    message["body"] = {"__type__": "bytes", "__value__": '[["c-1"]]'}
    assert accepted(json.dumps(message).encode()).received_fields == FIELDS


def test_what_celery_php_writes_is_a_job() -> None:
    job = {"id": "php_69247", "task": TASK_NAME, "args": [], "kwargs": FIELDS, "eta": "2026-12-02T16:00:00"}
    raw = json.dumps(
        {
            "body": encoded(job),
            "headers": {},
            "content-type": "application/json",
            "content-encoding": "binary",
            "properties": {
                "body_encoding": "base64",
                "reply_to": job["id"],
                "delivery_info": {"priority": 0, "routing_key": "celery", "exchange": "celery"},
                "delivery_mode": 2,
                "delivery_tag": job["id"],
            },
        }
    )
    found = accepted(raw.encode())
    assert (found.id, found.received_fields, found.naive_times) == ("php_69247", FIELDS, ("eta",))


def test_one_constant_delivery_tag_in_every_message_means_nothing() -> None:
    first, second = (made(headers={"id": name}, properties={"delivery_tag": "same"}) for name in ("a", "b"))
    assert [accepted(raw).id for raw in (first, second)] == ["a", "b"]


def test_ensure_ascii_or_not_is_the_same_text() -> None:
    fields = {"conversation_id": "Gespräch-\N{SMILING FACE WITH SMILING EYES}-会话"}
    plain = json.dumps([[], fields], ensure_ascii=False).encode()
    assert accepted(made(as_base64(plain))).received_fields == accepted(made([[], fields])).received_fields == fields


def test_a_stock_message_survives_without_any_of_its_optional_parts() -> None:
    message = json.loads(stock())
    slim = {"body": message["body"], "headers": {"task": TASK_NAME}}
    found = accepted(json.dumps(slim).encode())
    assert (found.job.conversation_id, found.fingerprint) == ("c-1", None)
