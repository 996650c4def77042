"""The pages and schemas made from the code are up to date, and say what the worker does."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from prometheus_client import generate_latest

from docs.generate import FOLDER, PAGES
from settings import Settings
from tasks.event import build
from tasks.message import Accepted, Message
from tasks.parse import parse
from tests.message.messages import ABSENT, NOW, accepted, encoded, made, stock
from tests.message.test_fields import INVALID, INVALID_BEYOND_THE_SCHEMA, VALID, cases
from tests.tasks.test_event import FACTS, OUTCOMES, PROBLEM
from worker.message.control_event import What, control_event
from worker.message.controls import Note
from worker.observe.metrics_page import OF_A_WORKER as REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.outcome import Outcome


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text("utf-8"))
    return found


SCHEMAS = {name: document(f"schemas/{name}.json") for name in ("job", "message", "event")}
JOB, MESSAGE, EVENT = (Draft202012Validator(schema) for schema in SCHEMAS.values())
BODY = Draft202012Validator({"$defs": SCHEMAS["message"]["$defs"], "$ref": "#/$defs/Body"})
ASYNCAPI = document("asyncapi.json")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_made_from_the_code_is_up_to_date(page: str) -> None:
    assert (FOLDER / page).read_text("utf-8") == PAGES[page](), "run: make docs"


def test_no_schema_is_left_over() -> None:
    assert {f"schemas/{file.name}" for file in (FOLDER / "schemas").iterdir()} <= PAGES.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_its_examples_fit(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$id"] == f"urn:lock-worker:{name}:1"
    assert schema["title"]
    assert schema["description"]
    for draft in (Draft202012Validator, Draft7Validator):  # AsyncAPI's tools read the older one
        draft.check_schema(schema)
        assert schema["examples"]
        for example in schema["examples"]:
            draft(schema).validate(example)


# --- the job -----------------------------------------------------------------------------------------------------

# What a schema cannot say, and its description does. Python's `$` also matches before a last line break.
NOT_SAID = {
    "conversation_id": INVALID_BEYOND_THE_SCHEMA["conversation_id"],
    "requested_at": [
        "2026-11-22T15:04:05Z\n",
        "2026-02-30T15:04:05Z",
        "2026-11-22T24:04:05Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
    ],
    "metadata": INVALID_BEYOND_THE_SCHEMA["metadata"],
}


def is_accepted(job: Mapping[str, Any]) -> bool:
    message = Message(
        id="j-1", has_own_id=True, args=[], kwargs=job, not_before=None, expires_at=None, traceparent=None,
        replay_of=None, ignored=(),
    )  # fmt: skip
    return isinstance(parse(message), Accepted)


def with_field(name: str, value: Any) -> dict[str, Any]:
    job = {"conversation_id": "c-1", name: value}
    return {name: value for name, value in job.items() if value is not ABSENT}


@pytest.mark.parametrize(("name", "value"), cases(VALID))
def test_the_job_schema_takes_what_is_accepted(name: str, value: Any) -> None:
    job = with_field(name, value)
    JOB.validate(job)
    assert is_accepted(job)


@pytest.mark.parametrize(("name", "value"), [*cases(INVALID), *cases({"conversation_id": ["c\n", "\n"]})])
def test_the_job_schema_refuses_what_is_refused(name: str, value: Any) -> None:
    job = with_field(name, value)
    assert not JOB.is_valid(job)
    assert not is_accepted(job)


@pytest.mark.parametrize(("name", "value"), cases(NOT_SAID))
def test_what_a_schema_cannot_say_is_refused_all_the_same(name: str, value: Any) -> None:
    job = with_field(name, value)
    JOB.validate(job)
    assert not is_accepted(job)


@pytest.mark.parametrize("value", INVALID_BEYOND_THE_SCHEMA["requested_at"])
def test_the_job_schema_knows_the_shape_of_a_time(value: str) -> None:
    assert JOB.is_valid(with_field("requested_at", value)) is (value in NOT_SAID["requested_at"])


texts = st.text(max_size=8) | st.sampled_from(["x" * size for size in (127, 128, 129, 256, 257, 1000, 1001)])
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
times = st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]+)?[Zz]?\n?")
near: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(VALID, texts),
    "conversation_id": texts | st.text("./\n\x7f\x85a", max_size=3) | st.integers(),
    "policies": st.lists(texts, max_size=22),
    "requested_at": times,
    "dry_run": st.booleans(),
    "metadata": st.dictionaries(texts, values, max_size=3),
    "dryrun": st.booleans(),
}
changes = st.sampled_from(list(near)).flatmap(lambda name: st.tuples(st.just(name), near[name] | values))
jobs = st.lists(changes, max_size=3).map(lambda changed: {"conversation_id": "c-1", **dict(changed)})


@settings(deadline=None)
@given(jobs)
def test_the_job_schema_and_the_worker_agree_on_any_job(job: dict[str, Any]) -> None:
    said, done = JOB.is_valid(job), is_accepted(job)
    assert said or not done
    if said and not done:
        mended = {name: value for name, value in job.items() if name not in {"requested_at", "metadata"}}
        assert is_accepted({**mended, "conversation_id": str(job["conversation_id"])})


# --- the event ---------------------------------------------------------------------------------------------------

outcomes = pytest.mark.parametrize(
    "outcome", [outcome for outcome, *_ in OUTCOMES], ids=[name for *_, name in OUTCOMES]
)


def told(outcome: Outcome, **facts: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(build(replace(FACTS, **facts), outcome).body)
    return event


@outcomes
def test_every_outcome_makes_an_event_of_the_schema(outcome: Outcome) -> None:
    EVENT.validate(told(outcome))
    EVENT.validate(told(outcome, subject=None, received_fields=None, replay_of="old-1", attempts=0))


@outcomes
def test_the_event_schema_tells_what_goes_together(outcome: Outcome) -> None:
    event = told(outcome)
    data = event["data"]
    error = {"type": "refused", "title": "", "status": None, "detail": ""} if data["error"] is None else None
    conversation = {"id": "c-1", "locked": True} if data["conversation"] is None else None
    for other in ({"error": error}, {"conversation": conversation}, {"error": error, "conversation": conversation}):
        assert not EVENT.is_valid({**event, "data": {**data, **other}})
    of_the_outcome = {kind for _, kind, name in OUTCOMES if name == data["outcome"]}
    for event_type in {kind for _, kind, _ in OUTCOMES} - of_the_outcome:
        assert not EVENT.is_valid({**event, "type": event_type})


def test_an_event_may_get_more_fields_and_none_may_go() -> None:
    (outcome, *_) = OUTCOMES[-1]
    event = told(outcome)
    EVENT.validate(
        {**event, "new": 1, "data": {**event["data"], "new": 1, "error": {**event["data"]["error"], "new": 1}}}
    )
    for name in event.keys() - {"subject"}:
        assert not EVENT.is_valid({key: value for key, value in event.items() if key != name})
    for name in event["data"]:
        data = {key: value for key, value in event["data"].items() if key != name}
        assert not EVENT.is_valid({**event, "data": data})


def test_every_kind_of_problem_is_in_the_event_schema() -> None:
    assert set(SCHEMAS["event"]["$defs"]["ProblemType"]["enum"]) == set(type(PROBLEM.type))


# --- the message -------------------------------------------------------------------------------------------------


def body_of(message: dict[str, Any]) -> Any:
    text = message["body"]
    return json.loads(base64.b64decode(text) if message["properties"]["body_encoding"] == "base64" else text)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(stock(), id="keyword arguments"),
        pytest.param(stock("c-1"), id="the id"),
        pytest.param(stock(7), id="an integer id"),
        pytest.param(stock({"conversation_id": "c-1", "dry_run": True}), id="one object"),
        pytest.param(stock(body_encoding="utf-8"), id="plain body"),
        pytest.param(stock(body_encoding=None), id="plain body, said so with null"),
        pytest.param(stock(eta=NOW, expires=NOW, priority=9, ignore_result=True), id="options"),
        pytest.param(stock(headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "replay_of": "old"}), id="headers"),
        pytest.param(made([[], {"conversation_id": "c-1"}]), id="no third element"),
        *(pytest.param(json.dumps(example).encode(), id="example") for example in SCHEMAS["message"]["examples"]),
    ],
)
def test_a_job_as_celery_writes_it_fits_the_message_schema(raw: bytes) -> None:
    accepted(raw)
    message = json.loads(raw)
    MESSAGE.validate(message)
    BODY.validate(body_of(message))


def test_a_compressed_message_fits_the_message_schema() -> None:
    known = SCHEMAS["message"]["properties"]["headers"]["properties"]["compression"]["enum"]
    for name in ("gzip", "zlib"):
        message = json.loads(stock(compression=name))
        assert message["headers"]["compression"] in known
        MESSAGE.validate(message)
        for word in known[1:]:
            accepted(json.dumps({**message, "headers": {**message["headers"], "compression": word}}).encode())


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": {"task": "moderation.unlock"}},
        {"headers": {"task": ABSENT}},
        {"headers": {"id": ""}},
        {"headers": {"id": "i" * 129}},
        {"headers": {"eta": 1795359845}},
        {"headers": {"eta": "1764112010500"}},
        {"headers": {"compression": "bzip2"}},
        {"content_type": "application/x-python-serialize"},
        {"content_encoding": "latin-1"},
        {"properties": {"body_encoding": "hex"}},
        {"body": ABSENT},
    ],
    ids=str,
)
def test_the_message_schema_refuses_what_is_refused(changed: dict[str, Any]) -> None:
    message = json.loads(made(**{name: value for name, value in changed.items() if value is not ABSENT}))
    message = {name: value for name, value in message.items() if changed.get(name) is not ABSENT}
    assert not MESSAGE.is_valid(message)
    with pytest.raises(AssertionError):
        accepted(json.dumps(message).encode())


@pytest.mark.parametrize(
    "body",
    [
        [[], {}, {}],
        [["c-1"], {"reason": "r"}, {}],
        [["c-1", "c-2"], {}, {}],
        [[True], {}, {}],
        [[], {"conversation_id": "c-1", "dryrun": True}, {}],
        [[], {"conversation_id": "c-1"}, {}, {}],
        "c-1",
    ],
    ids=json.dumps,
)
def test_the_message_schema_refuses_a_body_that_is_refused(body: Any) -> None:
    assert not BODY.is_valid(body)
    with pytest.raises(AssertionError):
        accepted(made(encoded(body)))


# --- the AsyncAPI document ---------------------------------------------------------------------------------------


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


def all_are(schema: dict[str, Any]) -> dict[str, Any]:
    """An object with members of one kind, whose names the specification allows."""
    return {"type": "object", "additionalProperties": schema, "propertyNames": {"pattern": r"^[A-Za-z0-9_\-]+$"}}


TEXT = {"type": "string", "minLength": 1}
REFERENCE = closed({"$ref": TEXT})
REFERENCES = {"type": "array", "items": REFERENCE, "uniqueItems": True}
# AsyncAPI 3.0.0, as far as the document makes use of it.
RULES = closed(
    {
        "asyncapi": {"const": "3.0.0"},
        "info": closed({"title": TEXT, "version": TEXT}, description=TEXT),
    },
    id={"type": "string", "pattern": "^[a-z]+:"},
    defaultContentType=TEXT,
    servers=all_are(
        closed({"host": {"type": "string", "pattern": "^[^/]+$"}, "protocol": TEXT}, pathname=TEXT, description=TEXT)
    ),
    channels=all_are(
        closed({}, address=TEXT, title=TEXT, description=TEXT, servers=REFERENCES, messages=all_are(REFERENCE))
    ),
    operations=all_are(
        closed({"action": {"enum": ["send", "receive"]}, "channel": REFERENCE}, summary=TEXT, messages=REFERENCES)
    ),
    components=closed(
        {},
        messages=all_are(
            closed(
                {},
                title=TEXT,
                summary=TEXT,
                contentType=TEXT,
                correlationId=closed(
                    {"location": {"type": "string", "pattern": r"^\$message\.(header|payload)#(/[^/]+)+$"}},
                    description=TEXT,
                ),
                payload={"type": "object"},
            )
        ),
    ),
)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def pointed_at(root: Any, pointer: str) -> Any:
    for name in pointer.split("/")[1:]:
        root = root[name]
    return root


def resolved(reference: str) -> Any:
    file, _, pointer = reference.partition("#")
    return pointed_at(document(file) if file else ASYNCAPI, pointer)


def test_the_asyncapi_document_follows_the_rules() -> None:
    Draft202012Validator(RULES).validate(ASYNCAPI)


def test_what_documents_refer_to_is_there() -> None:
    assert {reference for reference in references(ASYNCAPI) if not reference.startswith("#")} == {
        "./schemas/message.json",
        "./schemas/event.json",
    }
    for reference in references(ASYNCAPI):
        assert isinstance(resolved(reference), dict), reference
    for schema in SCHEMAS.values():
        for reference in references(schema):
            assert reference.startswith("#/")
            assert isinstance(pointed_at(schema, reference), dict), reference


def test_every_operation_is_of_a_channel_and_its_messages() -> None:
    channels = {f"#/channels/{name}": channel for name, channel in ASYNCAPI["channels"].items()}
    used = {operation["channel"]["$ref"]: operation for operation in ASYNCAPI["operations"].values()}
    assert used.keys() == channels.keys()
    for name, operation in used.items():
        assert {message["$ref"] for message in operation["messages"]} == {
            f"{name}/messages/{message}" for message in channels[name]["messages"]
        }
    assert [used[name]["action"] for name in channels] == ["receive", "send", "send", "send"]


def test_the_channels_are_those_of_the_settings() -> None:
    assert [channel["address"] for channel in ASYNCAPI["channels"].values()] == [
        Settings.model_fields[name].default
        for name in ("LOCK_QUEUE", "RESULTS_CHANNEL", "DEAD_STREAM", "CONTROL_STREAM")
    ]


def test_a_job_and_its_event_are_said_to_belong_together_by_the_job_id() -> None:
    messages = ASYNCAPI["components"]["messages"]
    for name in ("job", "result"):
        location = messages[name]["correlationId"]["location"].removeprefix("$message.payload#")
        for example in resolved(messages[name]["payload"]["$ref"])["examples"]:
            assert pointed_at(example, location)


# --- the metrics -------------------------------------------------------------------------------------------------


def test_the_page_of_metrics_names_what_is_exposed() -> None:
    page = (FOLDER / "metrics.md").read_text("utf-8")
    exposed = re.findall(r"^# TYPE (\w+) (\w+)$", generate_latest(REGISTRY).decode(), re.MULTILINE)
    named = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert sorted(named) == sorted(
        (name, kind) for name, kind in exposed if not name.endswith("_created") and not name.startswith("process_")
    )
    assert all(row.endswith(". |") for row in page.splitlines() if row.startswith("| `"))


@pytest.mark.parametrize("what", get_args(What))
def test_a_control_event_fits_the_document(what: What) -> None:
    payload = ASYNCAPI["components"]["messages"]["control"]["payload"]
    note = Note("ann", "it locks too much", 1_764_000_000_000, 1_764_000_600_000)
    event = json.loads(
        control_event(what, note, source="/lock-worker", queue="moderation.lock", selector={"rule": "r"})
    )

    Draft202012Validator(payload).validate(event)

    assert event["type"] in payload["properties"]["type"]["examples"]
    assert (event["data"]["at"], event["data"]["until"]) == ("2025-11-24T16:00:00.000Z", "2025-11-24T16:10:00.000Z")
