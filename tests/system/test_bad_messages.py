"""Whatever lies in the queue gets its one event, and neither stops the worker nor hides the job behind it."""

from __future__ import annotations

import base64
import gzip
import json
import uuid
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tasks.event import ResultEvent
from tests.system.stage import DEAD, QUEUE, RESULTS, TASK, Stage, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


MARKER = "Xk7qPersonalTextW3v"
"""Stands in the body of every message below, and may not come out in any log."""

KEPT_BYTES = 64 * 1024
ABSENT = object()
FIELDS = {"conversation_id": "c-1", "reason": MARKER}


@dataclass(frozen=True)
class Bad:
    """A message that is no job, and how it ends. ``id`` and ``subject`` None: the event has none of the message's."""

    raw: bytes
    error: str
    id: str | None = "job-1"
    subject: str | None = "c-1"


@dataclass(frozen=True)
class Good:
    """A message that is odd and a job all the same. ``id`` None: the event has none of the message's."""

    raw: bytes
    id: str | None = "job-1"
    target: str = "/conversations/c-1/lock"


def message(body: Any = None, *, headers: Any = None, properties: Any = None, **outer: Any) -> bytes:
    """A message of protocol 2 as kombu writes it, but for what is given.

    ``headers`` and ``properties`` are laid over the usual ones if they are objects; :data:`ABSENT` leaves a key out.
    """
    usual = {
        "body": body if isinstance(body, str) else as_base64([[], FIELDS, {}] if body is None else body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": over({"lang": "py", "task": TASK, "id": "job-1", "retries": 0, "eta": None}, headers),
        "properties": over(
            {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "delivery_tag": "a-tag",
                "priority": 0,
            },
            properties,
        ),
    }
    return json.dumps(over(usual, {name.replace("_", "-"): value for name, value in outer.items()})).encode()


def over(usual: dict[str, Any], changes: Any) -> Any:
    if changes is None:
        return usual
    if not isinstance(changes, dict):
        return changes
    return {name: value for name, value in {**usual, **changes}.items() if value is not ABSENT}


def as_base64(body: Any) -> str:
    return base64.b64encode(body if isinstance(body, bytes) else json.dumps(body).encode()).decode()


def fields(**changes: Any) -> bytes:
    """A message whose job has these fields beside, or instead of, the usual ones."""
    return message([[], over(FIELDS, changes), {}])


def protocol_1(**changes: Any) -> Any:
    return over({"task": TASK, "id": "job-1", "args": [], "kwargs": FIELDS, "retries": 0, "eta": None}, changes)


def nested(levels: int) -> bytes:
    return b'{"' + MARKER.encode() + b'": ' + b"[" * levels + b"]" * levels + b"}"


LONGEST_ID = "c" * 256
LINK: dict[str, Any] = {
    "callbacks": [{"task": "other.task", "args": [MARKER], "kwargs": {}, "options": {}, "subtask_type": None}]
}

BAD = {
    "an empty id": Bad(message(headers={"id": ""}), "invalid_job", id=None),
    "an id with line breaks": Bad(message(headers={"id": "job\r\n1"}), "invalid_job", id=None),
    "an id that is an object": Bad(message(headers={"id": {"a": MARKER}}), "invalid_job", id=None),
    "a conversation id of 257 characters": Bad(fields(conversation_id=LONGEST_ID + "c"), "invalid_job", subject=None),
    "a conversation id with control characters": Bad(fields(conversation_id="c\x00\n1"), "invalid_job", subject=None),
    "a conversation id that is a path": Bad(fields(conversation_id=".."), "invalid_job", subject=None),
    "no conversation id": Bad(fields(conversation_id=ABSENT), "invalid_job", subject=None),
    "a conversation id that is a list": Bad(fields(conversation_id=[MARKER]), "invalid_job", subject=None),
    "an unknown field": Bad(fields(dryrun=True), "invalid_job"),
    "a reason that is a number": Bad(fields(reason=7, rule_id=MARKER), "invalid_job"),
    "policies that are a string": Bad(fields(policies=MARKER), "invalid_job"),
    "dry_run that is a string": Bad(fields(dry_run="true"), "invalid_job"),
    "metadata that is a list": Bad(fields(metadata=[MARKER]), "invalid_job"),
    "metadata of 9 KiB": Bad(fields(metadata={"text": MARKER + "m" * 9 * 1024}), "invalid_job"),
    "arguments that are a string": Bad(message([MARKER, {}, {}]), "invalid_job", subject=None),
    "an eta that is no time": Bad(message(headers={"eta": "tomorrow"}), "invalid_job"),
    "an eta that is a number": Bad(message(headers={"eta": 1_900_000_000}), "invalid_job"),
    "an eta in a thousand years": Bad(message(headers={"eta": "3026-01-01T00:00:00+00:00"}), "invalid_job"),
    "expires that is no time": Bad(message(headers={"expires": "13 o'clock"}), "invalid_job"),
    "protocol 1 with an eta that is no time": Bad(message(protocol_1(eta="x"), headers=[]), "invalid_job"),
    "no headers": Bad(message(headers=ABSENT), "unknown_task", id=None),
    "headers that are an empty list": Bad(message(headers=[]), "unknown_task", id=None),
    "another task": Bad(message(headers={"task": "moderation.unlock"}), "unknown_task"),
    "a task that is a number": Bad(message(headers={"task": 5}), "unknown_task"),
    "headers that are a string": Bad(message(headers=MARKER), "undecodable", id=None, subject=None),
    "properties that are a string": Bad(message(properties=MARKER), "undecodable", id=None, subject=None),
    "a body that is not base64": Bad(message(f"*{MARKER}*"), "undecodable", subject=None),
    "a body that is not JSON": Bad(message(as_base64(MARKER.encode())), "undecodable", subject=None),
    "a body that is a number": Bad(message(as_base64(b"5")), "undecodable", subject=None),
    "a body with a lone surrogate": Bad(fields(reason=f"{MARKER}\ud800"), "undecodable", subject=None),
    "a body that is not UTF-8": Bad(message(as_base64(b'[[], {"a": "\xff"}]')), "undecodable", subject=None),
    "a body with NaN": Bad(fields(metadata={MARKER: float("nan")}), "undecodable", subject=None),
    "a body with a key twice": Bad(message(as_base64(b'[[],{"a":1,"a":2},{}]')), "undecodable", subject=None),
    "a body with 5,000 levels": Bad(message(as_base64(nested(5000))), "undecodable", subject=None),
    "pickle": Bad(message(content_type="application/x-python-serialize"), "undecodable", subject=None),
    "a gzip bomb": Bad(
        message(
            as_base64(gzip.compress(MARKER.encode() + b" " * 100_000_000, mtime=0)),
            headers={"compression": "application/x-gzip"},
        ),
        "undecodable",
        subject=None,
    ),
    "a task id with a lone surrogate": Bad(message(headers={"id": "\ud800"}), "undecodable", id=None, subject=None),
    "a message with 5,000 levels": Bad(nested(5000), "undecodable", id=None, subject=None),
    "an empty message": Bad(b"", "undecodable", id=None, subject=None),
    "bytes that are no JSON": Bad(b"\x80\x04\x95" + MARKER.encode(), "undecodable", id=None, subject=None),
    "JSON that is no object": Bad(json.dumps([MARKER]).encode(), "undecodable", id=None, subject=None),
    "5 MB of junk": Bad(MARKER.encode() + Random(5).randbytes(5_000_000), "undecodable", id=None, subject=None),
}

GOOD = {
    "no id": Good(message(headers={"id": ABSENT}), id=None),
    "an integer as id": Good(message(headers={"id": 17}), id="17"),
    "an id in Chinese": Good(message(headers={"id": "锁定任务-1"}), id="锁定任务-1"),
    "a conversation id of 256 characters": Good(
        fields(conversation_id=LONGEST_ID), target=f"/conversations/{LONGEST_ID}/lock"
    ),
    "a conversation id that is an integer": Good(fields(conversation_id=17), target="/conversations/17/lock"),
    "a conversation id that leads upwards": Good(fields(conversation_id="../x"), target="/conversations/..%2Fx/lock"),
    "a conversation id with marks of a URL": Good(
        fields(conversation_id="a/b?c#d"), target="/conversations/a%2Fb%3Fc%23d/lock"
    ),
    "a conversation id that is encoded": Good(
        fields(conversation_id="%2e%2e"), target="/conversations/%252e%252e/lock"
    ),
    "protocol 1": Good(message(protocol_1(), headers={"task": ABSENT, "id": ABSENT})),
    "protocol 1 without headers": Good(message(protocol_1(), headers=ABSENT)),
    "protocol 1 with headers that are an empty list": Good(message(protocol_1(), headers=[])),
    "a body of two elements": Good(message([[], FIELDS])),
    "one positional object": Good(message([[FIELDS], {}, {}])),
    "one positional id": Good(message([["c-1"], {}, {}])),
    "null for what is not there": Good(message(headers={"retries": None, "expires": None, "timelimit": None})),
    "no delivery tag": Good(message(properties={"delivery_tag": ABSENT})),
    "no delivery info": Good(message(properties={"delivery_info": ABSENT})),
    "no properties": Good(message(properties=ABSENT)),
    "no content type": Good(message(content_type=ABSENT, content_encoding=ABSENT)),
    "the exchange of others": Good(
        message(properties={"delivery_info": {"exchange": "billing.events", "routing_key": "invoice.paid"}})
    ),
    "gzip": Good(
        message(as_base64(gzip.compress(json.dumps([[], FIELDS, {}]).encode())), headers={"compression": "gzip"})
    ),
    "a link": Good(message([[], FIELDS, LINK])),
    "an eta in the past": Good(message(headers={"eta": "1996-12-19T16:39:57-08:00"})),
}


@pytest.fixture(scope="module")
def stage(module_stage: Stage) -> Stage:
    """One system for all bad messages."""
    return module_stage


@pytest.fixture(scope="module")
def the_worker(stage: Stage) -> WorkerProcess:
    return stage.worker("-l", "DEBUG")


@pytest.fixture
def worker(stage: Stage, the_worker: WorkerProcess) -> Iterator[WorkerProcess]:
    """The one worker: idle before a test, alive and idle after it, and silent about what the messages said."""
    stage.redis.delete(RESULTS, DEAD)
    for name in stage.redis.scan_iter(f"{stage.keys.id_prefix}*"):
        stage.redis.delete(name)  # no test is a copy of another
    stage.api.reset()
    yield the_worker
    stage.wait_idle()
    assert stage.leftovers() == []
    assert the_worker.process.poll() is None
    log = the_worker.log
    assert log.count(" ready.") == 1
    for trace in traces_of(MARKER):
        assert trace not in log


def traces_of(marker: str) -> list[str]:
    """The marker as it stands in a plain text, and in the base64 of a text, wherever it begins there."""
    encoded = [base64.b64encode(b" " * shift + marker.encode())[4 if shift else 0 : -4].decode() for shift in range(3)]
    return [marker, *encoded]


def test_a_marker_is_found_in_base64_wherever_it_stands() -> None:
    for shift in range(20):
        text = "x" * shift + MARKER + "x" * 7
        assert sum(trace in as_base64(text.encode()) for trace in traces_of(MARKER)) == 1


def events(stage: Stage, count: int) -> list[dict[str, Any]]:
    """All events, once there are so many and no job is left that could give another: each fits the published schema."""
    stage.wait_events(count)
    stage.wait_idle()
    found = stage.wait_events(count)
    for _, entry in stage.redis.xrange(RESULTS):
        ResultEvent.model_validate_json(entry[b"event"])
    return found


def push_with_a_healthy_job_behind(stage: Stage, raw: bytes) -> dict[str, Any]:
    """Give the event of a message, once the healthy job that lay right behind it has its own."""
    healthy = message([[], {"conversation_id": "healthy"}, {}], headers={"id": "healthy"})
    stage.redis.lpush(QUEUE, raw, healthy)
    found = {event["id"]: event for event in events(stage, 2)}
    assert found.pop("healthy")["data"]["outcome"] == "locked"
    (event,) = found.values()
    return event


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.usefixtures("worker")
def test_what_is_no_job_is_rejected_and_kept_byte_for_byte(bad: Bad, stage: Stage) -> None:
    event = push_with_a_healthy_job_behind(stage, bad.raw)

    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "rejected")
    assert event["data"]["error"]["type"] == bad.error
    assert event["data"]["error"]["detail"]
    assert MARKER not in event["data"]["error"]["detail"]
    assert (event["id"] == bad.id) if bad.id else event["id"].startswith("anonymous-")
    assert event.get("subject") == bad.subject
    assert (event["data"]["attempts"], event["data"]["conversation"]) == (0, None)
    assert stage.dead_letters() == [(event, bad.raw[:KEPT_BYTES])]
    assert [call.conversation_id for call in stage.api.calls()] == ["healthy"]


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD.keys())
@pytest.mark.usefixtures("worker")
def test_what_can_be_understood_is_a_job(good: Good, stage: Stage) -> None:
    event = push_with_a_healthy_job_behind(stage, good.raw)

    assert (event["type"], event["data"]["outcome"]) == ("conversation.locked", "locked")
    assert (event["id"] == good.id) if good.id else event["id"].startswith("anonymous-")
    targets = [call.target.decode() for call in stage.api.calls()]
    assert sorted(targets) == sorted([good.target, "/conversations/healthy/lock"])
    assert stage.dead_letters() == []


@pytest.mark.usefixtures("worker")
def test_messages_that_all_have_the_same_delivery_tag_are_all_run(stage: Stage) -> None:
    stage.redis.lpush(QUEUE, *[message(headers={"id": f"job-{number}"}) for number in range(8)])

    found = events(stage, 8)
    assert {event["id"] for event in found} == {f"job-{number}" for number in range(8)}
    assert {event["data"]["outcome"] for event in found} == {"locked"}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.usefixtures("worker")
def test_each_of_300_mangled_messages_gets_exactly_one_event(seed: int, stage: Stage) -> None:
    chance = Random(seed)
    raws = [mangled(chance) for _ in range(300)]

    stage.redis.lpush(QUEUE, *raws)

    found = events(stage, 300)
    assert len({event["id"] for event in found}) == 300
    failed = [event for event in found if event["type"] == "conversation.lock_failed"]
    dead = stage.dead_letters()
    assert {event["id"] for event, _ in dead} == {event["id"] for event in failed}
    assert not {raw for _, raw in dead} - set(raws)
    assert 0 < len(failed) < 300


def mangled(chance: Random) -> bytes:
    """A message like one of those above, under an id that no other has, with a few random wounds."""
    own_id = str(uuid.UUID(int=chance.getrandbits(128)))
    template = chance.choice([
        message(headers={"id": own_id}),
        message([["c-1"], {}, {}], headers={"id": own_id, "timelimit": [None, None]}),
        message(json.dumps([[], FIELDS, LINK]), headers={"id": own_id}, properties={"body_encoding": "utf-8"}),
        message(protocol_1(id=own_id), headers={"task": ABSENT, "id": ABSENT}),
    ])  # fmt: skip
    raw = bytearray(template)
    for _ in range(chance.randint(0, 4)):
        start = chance.randrange(len(raw) + 1)
        end = min(len(raw), start + chance.choice([0, 1, 1, 2, 8, 60]))
        raw[start:end] = chance.choice(
            [b"", chance.randbytes(1), chance.randbytes(9), raw[start:end] * 2, b'"', b"{", b"\\u"]
        )
    return bytes(raw)


def test_the_log_of_all_these_messages_holds_nothing_of_what_they_said(stage: Stage, the_worker: WorkerProcess) -> None:
    assert the_worker.stop() == 0
    assert [trace for trace in traces_of(MARKER) if trace in the_worker.log] == []
    assert stage.jobs_left() == 0
