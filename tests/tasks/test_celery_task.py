"""The Celery task in the hands of a service with an app of its own: what it sends, and what it returns in-process."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import re
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, group
from jsonschema import Draft202012Validator
from kombu.exceptions import EncodeError

import settings
from sandbox.api import SandboxApi, run_in_thread
from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tasks.job import Job
from tasks.lock_conversation import lock_conversation
from tasks.task_name import TASK_NAME
from tests.message.messages import accepted, refused
from tests.system.stage import DEAD, QUEUE, RESULTS, TOKEN, Stage, eventually
from worker.broker.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"
TRACE = "0af7651916cd43dd8448eb211c80319c"
ALL_FIELDS = {
    "conversation_id": "c-42",
    "reason": "asked for a bank transfer",
    "rule_id": "r-7",
    "policies": ["off-platform payment"],
    "actor": "rule-engine",
    "correlation_id": "flag-1881",
    "requested_at": "2026-11-22T15:04:05Z",
    "dry_run": False,
    "metadata": {"score": 0.93},
}


def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text("utf-8")))


EVENT, MESSAGE = schema("event"), schema("message")


@pytest.fixture
def service(redis_url: str) -> Iterator[Celery]:
    """A service's own app, which knows nothing but its broker."""
    with Celery("my-service", broker=redis_url) as app:
        yield app


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxApi]:
    """The sandbox API, with the settings in the environment that a job needs to be run in-process."""
    found = {"API_TOKEN": TOKEN, "MAX_ATTEMPTS": "3", "RETRY_BASE_SECONDS": "0.01", "RETRY_MAX_DELAY_SECONDS": "0.05"}
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    with run_in_thread(SandboxApi(token=TOKEN)) as running:
        for name, value in {**found, "API_URL": running.url}.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def own_app() -> Iterator[Celery]:
    """An app for jobs that are run in-process; its broker does not exist."""
    with Celery("my-service", broker="redis://127.0.0.1:1/0") as app:
        yield app


def waiting(client: redis.Redis, name: str = QUEUE) -> list[bytes]:
    """The messages on a list, in the order in which they are taken."""
    found: Any = client.lrange(name, 0, -1)  # redis-py's types know of str too
    return list(reversed(found))


def only(client: redis.Redis, name: str = QUEUE) -> bytes:
    (message,) = waiting(client, name)
    return message


def body(raw: bytes) -> Any:
    message = json.loads(raw)
    return json.loads(base64.b64decode(message["body"]))


def fields_sent(raw: bytes) -> Any:
    args, kwargs, _ = body(raw)
    assert args == []
    return kwargs


def told(event: dict[str, Any]) -> tuple[str, str, int]:
    """A result event of the published schema: its type, its outcome and its attempts."""
    EVENT.validate(event)
    return event["type"], event["data"]["outcome"], event["data"]["attempts"]


def sentence(value: Any) -> str:
    """The id of a row in a table: only what it is told, as the rest may look different in each process."""
    return value if isinstance(value, str) and " " in value else ""


def failing(*then: Respond, **which: Any) -> Script:
    return Script(rules=tuple(Rule(then=one, **which) for one in then))


# --- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda: lock_conversation.delay("c-42", rule_id="r-7"), id="delay"),
        pytest.param(lambda: lock_conversation.delay(conversation_id="c-42", rule_id="r-7"), id="delay by name"),
        pytest.param(lambda: lock_conversation.apply_async(("c-42",), {"rule_id": "r-7"}), id="apply_async"),
        pytest.param(lambda: lock_conversation.apply_async(["c-42"], {"rule_id": "r-7"}), id="a list"),
        pytest.param(lambda: lock_conversation.delay({"conversation_id": "c-42", "rule_id": "r-7"}), id="one object"),
        pytest.param(lambda: lock_conversation.delay("c-42", rule_id="r-7", reason=None), id="None is absent"),
        pytest.param(lambda: lock_conversation.s("c-42", rule_id="r-7").apply_async(), id="a signature"),
        pytest.param(lambda: group([lock_conversation.s("c-42", rule_id="r-7")]).apply_async(), id="a group"),
    ],
)
def test_every_way_to_send_a_job_leaves_the_published_message(
    redis_client: redis.Redis, send: Callable[[], Any]
) -> None:
    send()

    raw = only(redis_client)
    message = json.loads(raw)
    MESSAGE.validate(message)
    assert fields_sent(raw) == {"conversation_id": "c-42", "rule_id": "r-7"}
    assert message["headers"]["task"] == TASK_NAME
    assert message["content-type"] == "application/json"
    found = accepted(raw)
    assert (found.subject, found.job.rule_id, found.ignored) == ("c-42", "r-7", ())


def test_all_fields_are_sent_as_they_were_given(service: Celery, redis_client: redis.Redis) -> None:
    sent = lock_conversation.delay(**ALL_FIELDS)

    raw = only(redis_client)
    assert fields_sent(raw) == ALL_FIELDS
    assert (accepted(raw).id, sent.app) == (sent.id, service)


@pytest.mark.usefixtures("service")
def test_the_options_of_a_message_mean_what_they_mean_in_celery(redis_client: redis.Redis) -> None:
    before = datetime.now(UTC)
    traceparent = f"00-{TRACE}-b7ad6b7169203331-01"
    lock_conversation.apply_async(
        ("c-42",), countdown=60, expires=3600, priority=3, task_id="job-1", headers={"traceparent": traceparent}
    )

    raw = only(redis_client, Keys(QUEUE).priority_list(3))
    found = accepted(raw)
    assert found.id == "job-1"
    assert found.traceparent == traceparent
    assert found.not_before is not None
    assert found.expires_at is not None
    assert timedelta(seconds=60) <= found.not_before - before < timedelta(seconds=90)
    assert timedelta(seconds=3600) <= found.expires_at - before < timedelta(seconds=3630)
    assert json.loads(raw)["properties"]["priority"] == 3

    eta = datetime(2027, 1, 1, tzinfo=UTC)
    lock_conversation.apply_async(("c-42",), eta=eta)
    assert json.loads(only(redis_client))["headers"]["eta"] == eta.isoformat()


@pytest.mark.parametrize(
    ("conf", "options"),
    [
        ({"task_serializer": "pickle", "accept_content": ["pickle"]}, {}),
        ({"task_serializer": "yaml", "result_serializer": "pickle"}, {}),
        ({}, {"serializer": "pickle"}),
        ({"task_annotations": {"*": {"serializer": "pickle"}}}, {}),
        ({"task_compression": "bzip2"}, {}),
        ({"task_compression": "gzip"}, {}),
        ({}, {"compression": "bzip2"}),
        ({"task_default_queue": "my-service", "task_default_exchange": "mine", "task_default_routing_key": "mine"}, {}),
        ({"task_default_exchange_type": "topic", "task_default_exchange": "mine"}, {}),
        ({"task_routes": {"*": {"queue": "my-service"}}}, {}),
        ({"task_routes": {"moderation.*": {"exchange": "mine", "routing_key": "mine", "exchange_type": "topic"}}}, {}),
        ({"task_queues": {"my-service": {}}, "task_create_missing_queues": False}, {}),
        ({"task_queue_max_priority": 10, "task_default_priority": 0}, {}),
        ({"result_backend": "cache+memory://"}, {}),
    ],
    ids=str,
)
def test_whatever_the_app_is_set_to_the_worker_can_read_the_message(
    service: Celery, redis_client: redis.Redis, conf: dict[str, Any], options: dict[str, Any]
) -> None:
    service.conf.update(conf)

    lock_conversation.apply_async(("c-42",), {"rule_id": "r-7"}, **options)

    raw = only(redis_client)
    assert json.loads(raw)["content-type"] == "application/json"
    assert accepted(raw).received_fields == {"conversation_id": "c-42", "rule_id": "r-7"}


@pytest.mark.usefixtures("service")
def test_the_queue_is_the_one_that_the_environment_names_when_a_job_is_sent(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, queue in (("staging.lock", "staging.lock"), ("", QUEUE), ("{mod}.lock", "{mod}.lock")):
        monkeypatch.setenv("LOCK_QUEUE", name)
        lock_conversation.delay("c-42")
        only(redis_client, queue)

    lock_conversation.apply_async(("c-42",), queue="urgent.lock")
    only(redis_client, "urgent.lock")

    monkeypatch.setenv("LOCK_QUEUE", "lw:mine")
    with pytest.raises(settings.SettingsError, match="LOCK_QUEUE: must not start with lw:"):
        lock_conversation.delay("c-42")


@pytest.mark.usefixtures("service")
def test_values_of_python_that_a_job_may_hold_are_sent(redis_client: redis.Redis) -> None:
    conversation_id, requested_at = uuid.uuid4(), datetime.now(UTC)

    lock_conversation.delay(conversation_id, requested_at=requested_at, metadata={"tags": ("a", "b")})

    found = accepted(only(redis_client))
    assert (found.subject, found.job.requested_at) == (str(conversation_id), requested_at)
    assert found.job.metadata == {"tags": ["a", "b"]}


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "conversation_id: is missing"),
        ((None,), {}, "conversation_id: is missing"),
        ((), {"rule_id": "r-7"}, "conversation_id: is missing"),
        (("c-42",), {"dryrun": True}, "'dryrun': there is no such field; dry_run may be meant"),
        (("c-42",), {"dryrun": None}, "'dryrun': there is no such field; dry_run may be meant"),
        (("c-42",), {"self": True}, "'self': there is no such field"),
        (({"conversation_id": "c-42", "ruleId": "r-7"},), {}, "'ruleId': there is no such field; rule_id may be meant"),
        (({1: "c-42"},), {}, "'1': there is no such field"),
        (("c-42", "r-7"), {}, "one positional argument, which is conversation_id, and was given 2"),
        (("c-42",), {"conversation_id": "c-43"}, "conversation_id, and was given 1 beside 1 by name"),
        (({"conversation_id": "c-42"},), {"rule_id": "r-7"}, "conversation_id, and was given 1 beside 1 by name"),
        ("c-42", {}, "args: must be a list or a tuple"),
        (("c-42",), ["r-7"], "kwargs: must be a mapping"),
    ],
    ids=sentence,
)
def test_arguments_that_are_no_jobs_raise_at_the_producer(
    redis_client: redis.Redis, args: Any, kwargs: Any, named: str
) -> None:
    with pytest.raises(TypeError) as raised:
        lock_conversation.apply_async(args, kwargs)

    assert named in str(raised.value)
    assert not redis_client.keys(QUEUE)


@pytest.mark.usefixtures("service")
def test_a_value_that_json_cannot_hold_raises_at_the_producer(redis_client: redis.Redis) -> None:
    with pytest.raises(EncodeError):
        lock_conversation.delay("c-42", metadata={"set": object()})
    assert not redis_client.keys(QUEUE)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rule_id": 7}, "rule_id: must be a string"),
        ({"dry_run": "yes"}, "dry_run: must be true or false"),
        ({"policies": "one"}, "policies: must be a list"),
        ({"requested_at": datetime(2026, 1, 1)}, "requested_at: names no offset"),  # noqa: DTZ001 - as a slip has it
        ({"metadata": {"large": "x" * 9000}}, "metadata: is too large"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("service")
def test_a_field_of_a_wrong_type_is_sent_for_the_worker_to_reject(
    redis_client: redis.Redis, fields: dict[str, Any], named: str
) -> None:
    lock_conversation.delay("c-42", **fields)

    found = refused(only(redis_client))
    assert found.problem.detail.startswith(named)
    assert found.subject == "c-42"


def test_the_task_belongs_to_the_default_app_in_every_thread(service: Celery, redis_client: redis.Redis) -> None:
    service.set_default()
    thread = threading.Thread(target=lambda: lock_conversation.delay("c-42"))
    thread.start()
    thread.join()

    assert accepted(only(redis_client)).subject == "c-42"


def test_the_signature_shows_the_fields_of_a_job(own_app: Celery) -> None:
    found = inspect.signature(own_app.tasks[TASK_NAME].run).parameters

    assert list(found) == list(Job.model_fields)
    first, *others = found.values()
    assert first.kind is first.POSITIONAL_OR_KEYWORD
    assert {one.kind for one in others} == {first.KEYWORD_ONLY}
    assert {one.name: one.default for one in others} == {one.name: Job.model_fields[one.name].default for one in others}


# --- a real worker -----------------------------------------------------------------------------------------------


def test_a_worker_locks_what_a_service_sends(redis_url: str, tmp_path: Path) -> None:
    with Stage(redis_url, tmp_path) as stage, Celery("my-service", broker=redis_url) as service:
        service.conf.task_serializer = "pickle"
        stage.worker()
        first = lock_conversation.delay("c-1", rule_id="r-7")
        second = lock_conversation.apply_async(("c-2",), {"rule_id": "r-7"}, countdown=0.1, task_id="job-2")
        third = lock_conversation.delay("c-3", rule_id=7)
        events = {event["id"]: event for event in stage.wait_events(3)}

        assert told(events[first.id]) == ("conversation.locked", "locked", 1)
        assert told(events[second.id]) == ("conversation.locked", "locked", 1)
        assert told(events[third.id]) == ("conversation.lock_failed", "rejected", 0)
        assert events["job-2"]["data"]["job"] == {"conversation_id": "c-2", "rule_id": "r-7"}
        assert {call.conversation_id for call in stage.api.calls()} == {"c-1", "c-2"}


def test_the_workers_app_has_the_same_task() -> None:
    program = (
        "import worker.celery\n"
        f"task = worker.celery.app.tasks[{TASK_NAME!r}]\n"
        "print(type(task).__mro__[1].__name__, task.__module__, task.acks_late, task.ignore_result)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"API_TOKEN": TOKEN}, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["LockTask", "tasks.lock_conversation", "True", "True"]


STOCK_WORKER = """
from celery import Celery
from tasks.lock_conversation import lock_conversation
app = Celery("stock", broker={url!r})
app.conf.broker_connection_retry_on_startup = True
"""


def test_a_stock_worker_that_takes_a_job_gives_it_back(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "stock.py").write_text(STOCK_WORKER.format(url=redis_url))
    log = tmp_path / "stock.log"
    command = [sys.executable, "-m", "celery", "-A", "stock", "worker", "-P", "solo", "-Q", QUEUE, "-l", "INFO"]
    with Stage(redis_url, tmp_path) as stage, Celery("my-service", broker=redis_url):
        sent = lock_conversation.delay("c-1")
        with log.open("wb") as out:
            environment = {**stage.environment(), "PYTHONPATH": f"{ROOT}:{tmp_path}"}
            stock = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
        try:
            eventually(lambda: f"Job {sent.id} was given back to its queue" in log.read_text(), "a job given back")
        finally:
            stock.terminate()
            stock.wait(20)
        assert not stage.api.calls()
        assert not stage.redis.exists(RESULTS, DEAD)
        stage.worker()
        assert told(stage.event_of(sent.id)) == ("conversation.locked", "locked", 1)


# --- in the process that calls it --------------------------------------------------------------------------------


@pytest.fixture(params=["a plain call", "run", "apply", "apply_async", "delay"])
def run(request: pytest.FixtureRequest, own_app: Celery) -> Callable[..., dict[str, Any]]:
    """Each way to run the task in the process that calls it."""
    match request.param:
        case "a plain call":
            return lock_conversation
        case "run":
            return lock_conversation.run
        case "apply":
            return lambda *args, **kwargs: lock_conversation.apply(args, kwargs).get()
        case "apply_async":
            own_app.conf.task_always_eager = True
            return lambda *args, **kwargs: lock_conversation.apply_async(args, kwargs, countdown=3600).get()
        case _:
            own_app.conf.update(task_always_eager=True, task_serializer="yaml")
            return lambda *args, **kwargs: lock_conversation.delay(*args, **kwargs).get()


def test_a_job_that_is_run_in_process_ends_in_its_event(run: Callable[..., dict[str, Any]], api: SandboxApi) -> None:
    event = run("c-42", rule_id="r-7", metadata={"score": 0.93})

    assert told(event) == ("conversation.locked", "locked", 1)
    assert event["subject"] == "c-42"
    fields = {name: value for name, value in event["data"]["job"].items() if name != "dry_run"}
    assert fields == {"conversation_id": "c-42", "rule_id": "r-7", "metadata": {"score": 0.93}}
    assert event["data"]["conversation"]["locked"] is True
    (call,) = api.calls()
    assert (call.conversation_id, call.idempotency_key) == ("c-42", event["id"])


@pytest.mark.usefixtures("own_app")
def test_the_task_id_is_the_job_id(api: SandboxApi) -> None:
    result = lock_conversation.apply((), ALL_FIELDS, task_id="job-1")

    event = result.get()
    assert (result.id, event["id"], event["data"]["job_id"]) == ("job-1", "job-1", "job-1")
    assert event["data"]["job"] == ALL_FIELDS
    assert [call.idempotency_key for call in api.calls()] == ["job-1"]
    plain = {lock_conversation("c-1")["id"] for _ in range(2)}
    assert len(plain) == 2


@pytest.mark.usefixtures("own_app")
def test_each_end_of_a_job_is_told_as_the_worker_tells_it(api: SandboxApi) -> None:
    api.script = Script(
        rules=(
            Rule(ids="missing*", then=Respond(status=404)),
            Rule(ids="broken*", then=Respond(status=500)),
            Rule(ids="flaky*", first_calls=2, then=Respond(status=502)),
            Rule(ids="busy*", first_calls=1, then=Respond(status=429, headers={"Retry-After": "1"})),
            Rule(ids="full*", then=Respond(status=429)),
            Rule(ids="away*", then=Respond(status=503, headers={"Retry-After": "0"})),
            Rule(ids="secret*", then=Respond(status=401)),
        )
    )
    ends = {
        conversation_id: (*told(event)[1:], (event["data"]["error"] or {}).get("type"))
        for conversation_id in ("c", "missing", "broken", "flaky", "busy", "full", "away", "secret")
        for event in [lock_conversation(conversation_id)]
    }
    assert ends == {
        "c": ("locked", 1, None),
        "missing": ("refused", 1, "not_found"),
        "broken": ("exhausted", 3, "server_error"),
        "flaky": ("locked", 3, None),
        "busy": ("locked", 1, None),
        "full": ("exhausted", 0, "rate_limited"),
        "away": ("exhausted", 0, "server_error"),
        "secret": ("refused", 3, "forbidden"),
    }
    calls = [call.conversation_id for call in api.calls()]
    assert (calls.count("full"), calls.count("away"), calls.count("busy")) == (3, 3, 2)


@pytest.mark.usefixtures("own_app")
def test_an_api_that_is_away_ends_a_job_as_exhausted(api: SandboxApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_URL", "http://127.0.0.1:1")

    event = lock_conversation("c-42")

    assert told(event) == ("conversation.lock_failed", "exhausted", 3)
    assert event["data"]["error"]["type"] == "unreachable"
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
def test_a_job_that_waits_is_not_called_past_its_greatest_age(api: SandboxApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.script = failing(Respond(status=500))
    monkeypatch.setenv("MAX_ATTEMPTS", "1000")
    monkeypatch.setenv("JOB_MAX_AGE_SECONDS", "0.2")

    event = lock_conversation("c-42")

    assert told(event)[1] == "exhausted"
    assert event["data"]["attempts"] == len(api.calls()) < 1000
    assert "JOB_MAX_AGE_SECONDS" in event["data"]["error"]["detail"]


def test_a_dry_run_is_not_called(run: Callable[..., dict[str, Any]], api: SandboxApi) -> None:
    assert told(run("c-42", dry_run=True)) == ("conversation.lock_skipped", "would_lock", 0)
    assert not api.calls()


@pytest.mark.parametrize(
    "expires",
    [-1, 0, datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z", datetime(2026, 1, 1)],  # noqa: DTZ001 - naive is UTC
    ids=str,
)
@pytest.mark.parametrize("always_eager", [False, True])
def test_an_expired_job_is_not_called(own_app: Celery, api: SandboxApi, expires: Any, *, always_eager: bool) -> None:
    own_app.conf.task_always_eager = always_eager
    how = lock_conversation.apply_async if always_eager else lock_conversation.apply

    assert told(how(("c-42",), expires=expires).get()) == ("conversation.lock_skipped", "expired", 0)
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
def test_a_job_that_expires_between_two_calls_is_not_called_again(
    api: SandboxApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.script = failing(Respond(status=500, headers={"Retry-After": "3"}))
    monkeypatch.setenv("RETRY_MAX_DELAY_SECONDS", "3")

    event = lock_conversation.apply(("c-42",), expires=2).get()

    assert told(event) == ("conversation.lock_skipped", "expired", 1)
    assert len(api.calls()) == 1


@pytest.mark.usefixtures("own_app")
def test_an_eta_is_not_waited_for(api: SandboxApi) -> None:
    for options in ({"countdown": 3600}, {"eta": datetime.now(UTC) + timedelta(hours=1)}):
        assert told(lock_conversation.apply(("c-42",), expires=7200, **options).get())[1] == "locked"
    assert len(api.calls()) == 2


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "conversation_id: is missing"),
        ((None,), {}, "conversation_id: is missing"),
        (("c-42", "r-7"), {}, "The job has 2 positional arguments"),
        (("c-42",), {"conversation_id": "c-43"}, "The job has positional and keyword arguments"),
        (("c-42",), {"dryrun": True}, "'dryrun': there is no such field; dry_run may be meant"),
        (("c-42",), {"dryrun": None}, "'dryrun': there is no such field; dry_run may be meant"),
        ((7.5,), {}, "conversation_id: must be a string"),
        ((["c-42"],), {}, "conversation_id: must be a string"),
        ((".",), {}, "conversation_id: is no path segment"),
        (("c-42",), {"rule_id": 7}, "rule_id: must be a string"),
        (("c-42",), {"requested_at": datetime(2026, 1, 1)}, "requested_at: names no offset"),  # noqa: DTZ001 - a slip
        (("c-42",), {"metadata": {"set": object()}}, "metadata: cannot be written as JSON"),
        (("c-42",), {"metadata": {"n": 10**5000}}, "metadata: cannot be written as JSON"),
        (("c-42",), {"metadata": {"n": float("nan")}}, "The job holds NaN"),
        (("c-42",), {"reason": "half \ud83d"}, "The job holds half a surrogate pair"),
        ((object(),), {}, "conversation_id: cannot be written as JSON"),
        ((object(), 1), {}, "args: cannot be written as JSON"),
    ],
    ids=sentence,
)
def test_arguments_that_are_no_jobs_end_as_rejected_in_process(
    own_app: Celery, api: SandboxApi, args: Any, kwargs: Any, named: str
) -> None:
    own_app.conf.task_always_eager = True
    for event in (
        lock_conversation(*args, **kwargs),
        lock_conversation.apply(args, kwargs).get(),
        lock_conversation.delay(*args, **kwargs).get(),
    ):
        assert told(event) == ("conversation.lock_failed", "rejected", 0)
        assert named in event["data"]["error"]["detail"]
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
@pytest.mark.parametrize(
    ("args", "kwargs", "options", "named"),
    [
        ("c-42", {}, {}, "args: must be a list"),
        (("c-42",), ["r-7"], {}, "kwargs: must be an object"),
        (("c-42",), {"self": True}, {}, "'self': there is no such field"),
        ((), {1: "c-42"}, {}, "'1': there is no such field"),
        (("c-42",), {}, {"task_id": "x" * 129}, "id: must be 1 to 128 printable characters"),
        (("c-42",), {}, {"expires": "tomorrow"}, "expires: must be an RFC 3339 time"),
        (("c-42",), {}, {"expires": 1e300}, "expires: must be an RFC 3339 time"),
        (("c-42",), {}, {"eta": 5}, "eta: must be an RFC 3339 time"),
        (("c-42",), {}, {"countdown": 1e9}, "eta: is more than 365 days away"),
    ],
    ids=sentence,
)
def test_options_that_are_no_jobs_end_as_rejected_in_process(
    api: SandboxApi, args: Any, kwargs: Any, *, options: dict[str, Any], named: str
) -> None:
    event = lock_conversation.apply(args, kwargs, **options).get()

    assert told(event) == ("conversation.lock_failed", "rejected", 0)
    assert named in event["data"]["error"]["detail"]
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
def test_what_was_understood_of_a_rejected_job_is_told(api: SandboxApi) -> None:
    event = lock_conversation("c-42", rule_id="r-7", metadata=object())

    assert event["subject"] == "c-42"
    assert event["data"]["job"] == {"conversation_id": "c-42", "rule_id": "r-7"}
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
def test_a_job_in_process_belongs_to_the_callers_trace(api: SandboxApi) -> None:
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "replay_of": "old-1"}

    event = lock_conversation.apply(("c-42",), headers=headers).get()

    assert event["traceparent"].split("-")[1] == TRACE
    assert event["data"]["replay_of"] == "old-1"
    (call,) = api.calls()
    assert call.traceparent is not None
    assert call.traceparent.split("-")[1] == TRACE


@pytest.mark.usefixtures("own_app")
async def test_a_job_can_be_run_where_a_loop_runs(api: SandboxApi) -> None:
    assert told(lock_conversation("c-42"))[1] == "locked"
    assert asyncio.get_running_loop().is_running()
    assert len(api.calls()) == 1


@pytest.mark.usefixtures("own_app")
def test_an_answer_with_a_number_of_any_length_is_told(api: SandboxApi) -> None:
    answer = '{"id": "c-42", "locked": true, "score": ' + "7" * 5000 + "}"
    api.script = failing(Respond(status=200, body=answer))

    assert lock_conversation("c-42")["data"]["outcome"] == "locked"


@pytest.mark.usefixtures("own_app", "api")
def test_wrong_settings_are_told_when_a_job_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_TOKEN")

    with pytest.raises(settings.SettingsError, match="API_TOKEN: is missing"):
        lock_conversation("c-42")
    assert isinstance(lock_conversation.apply(("c-42",)).result, settings.SettingsError)


@pytest.mark.usefixtures("own_app", "api")
def test_celerys_log_tells_nothing_that_people_wrote(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        event = lock_conversation.apply(("c-42",), {"reason": "a bank transfer"}).get()

    body = event["data"]["conversation"]["lastMessage"]["body"]
    assert "succeeded" in caplog.text
    assert body not in caplog.text
    assert "a bank transfer" not in caplog.text
    assert event["data"]["conversation"]["userA"]["username"] not in caplog.text


@pytest.mark.usefixtures("api")
def test_a_callback_has_no_effect_in_process_as_in_the_worker(
    own_app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    callback = own_app.signature("my.callback")

    assert lock_conversation.apply(("c-42",), link=callback, link_error=callback).successful()
    assert [vars(record)["option"] for record in caplog.records if record.message == "option_ignored"] == [
        "link",
        "link_error",
    ]


# --- what importing it does --------------------------------------------------------------------------------------

_IMPORT = """
import os, socket, sys, threading
reads = []
os.environ = type("Noted", (dict,), {"get": lambda self, name, default=None: reads.append(name) or default})(os.environ)
def refuse(*_): raise AssertionError("a connection")
socket.socket.connect = refuse
from tasks.lock_conversation import lock_conversation
from settings import Settings
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"worker", "sandbox", "redis", "httpx", "aiohttp"}))
print(sorted(set(reads) & set(Settings.model_fields)))
print(threading.active_count(), [name for name in os.listdir("/proc/self/task")].__len__())
"""


def test_importing_the_task_starts_nothing_and_reads_no_setting() -> None:
    environment = {"API_TOKEN_FILE": "/nonexistent", "REDIS_URL": "no url at all", "LOCK_QUEUE": "lw:none"}
    run = subprocess.run(
        [sys.executable, "-c", _IMPORT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert (run.stdout.splitlines(), run.stderr) == (["[]", "[]", "1 1"], "")


_SEND = """
import sys
from celery import Celery
from tasks.lock_conversation import lock_conversation
app = Celery("my-service", broker=sys.argv[1])
lock_conversation.delay("c-42", rule_id="r-7")
print(sorted({name.partition(".")[0] for name in sys.modules} & {"worker", "sandbox", "httpx", "aiohttp"}))
"""


def test_sending_needs_none_of_the_workers_settings(redis_url: str, redis_client: redis.Redis) -> None:
    environment = {"API_TOKEN_FILE": "/nonexistent", "REDIS_URL": "no url at all"}
    run = subprocess.run(
        [sys.executable, "-c", _SEND, redis_url], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert (run.stdout, run.stderr) == ("[]\n", "")
    assert fields_sent(only(redis_client)) == {"conversation_id": "c-42", "rule_id": "r-7"}


# --- the page ----------------------------------------------------------------------------------------------------


def examples() -> list[str]:
    page = (ROOT / "docs" / "producing.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "from tasks.lock_conversation import" in block]


def test_the_pages_example_of_sending_works_as_it_stands(redis_url: str, redis_client: redis.Redis) -> None:
    sending, _ = examples()
    assert "redis://127.0.0.1:6379/0" in sending
    program = sending.replace("redis://127.0.0.1:6379/0", redis_url)

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

    assert fields_sent(only(redis_client)) == {"conversation_id": "c-42", "rule_id": "r-7"}
    delayed = accepted(only(redis_client, Keys(QUEUE).priority_list(3)))
    assert (delayed.id, delayed.subject, delayed.job.actor) == ("flag-1881", "c-43", "rule-engine")
    assert delayed.not_before is not None
    assert delayed.expires_at is not None


def test_the_pages_example_of_a_test_works_as_it_stands(api: SandboxApi) -> None:
    _, testing = examples()
    environment = {"API_TOKEN": TOKEN, "API_URL": api.url}

    subprocess.run([sys.executable, "-c", testing], cwd=ROOT, env=environment, check=True)
