"""What a service with a Celery app of its own puts onto the queue with the task."""

from __future__ import annotations

import base64
import inspect
import json
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, group
from kombu.exceptions import EncodeError

import settings
from tasks.job import Job
from tasks.lock_conversation import lock_conversation
from tasks.task_name import TASK_NAME
from tests.message.messages import accepted, refused
from tests.system.stage import DEAD, QUEUE, RESULTS, TOKEN, Stage, eventually
from tests.tasks.celery_task import ALL_FIELDS, ROOT, TRACE, end_of, expected_text, page_examples, schema
from worker.broker.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

MESSAGE = schema("message")


@pytest.fixture
def service(redis_url: str) -> Iterator[Celery]:
    """A service's own app, which knows nothing but its broker."""
    with Celery("my-service", broker=redis_url) as app:
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
    ids=expected_text,
)
def test_invalid_arguments_raise_at_the_producer(redis_client: redis.Redis, args: Any, kwargs: Any, named: str) -> None:
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


# A real worker


def test_a_worker_locks_what_a_service_sends(redis_url: str, tmp_path: Path) -> None:
    with Stage(redis_url, tmp_path) as stage, Celery("my-service", broker=redis_url) as service:
        service.conf.task_serializer = "pickle"
        stage.worker()
        first = lock_conversation.delay("c-1", rule_id="r-7")
        second = lock_conversation.apply_async(("c-2",), {"rule_id": "r-7"}, countdown=0.1, task_id="job-2")
        third = lock_conversation.delay("c-3", rule_id=7)
        events = {event["id"]: event for event in stage.wait_events(3)}

        assert end_of(events[first.id]) == ("conversation.locked", "locked", 1)
        assert end_of(events[second.id]) == ("conversation.locked", "locked", 1)
        assert end_of(events[third.id]) == ("conversation.lock_failed", "rejected", 0)
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
        assert end_of(stage.event_of(sent.id)) == ("conversation.locked", "locked", 1)


# What importing the task does

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


# The producers' page


def test_the_pages_example_of_sending_works_as_it_stands(redis_url: str, redis_client: redis.Redis) -> None:
    sending, _ = page_examples()
    assert "redis://127.0.0.1:6379/0" in sending
    program = sending.replace("redis://127.0.0.1:6379/0", redis_url)

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

    assert fields_sent(only(redis_client)) == {"conversation_id": "c-42", "rule_id": "r-7"}
    delayed = accepted(only(redis_client, Keys(QUEUE).priority_list(3)))
    assert (delayed.id, delayed.subject, delayed.job.actor) == ("flag-1881", "c-43", "rule-engine")
    assert delayed.not_before is not None
    assert delayed.expires_at is not None
