"""A job that runs in the process that calls the task: the life that it has in the worker, and the event it returns."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import settings
from sandbox.api import SandboxApi, run_in_thread
from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tasks.lock_conversation import lock_conversation
from tests.system.stage import TOKEN
from tests.tasks.celery_task import ALL_FIELDS, ROOT, TRACE, end_of, expected_text, page_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery


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


def failing(*then: Respond, **which: Any) -> Script:
    return Script(rules=tuple(Rule(then=one, **which) for one in then))


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

    assert end_of(event) == ("conversation.locked", "locked", 1)
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
def test_each_outcome_is_the_same_as_in_the_worker(api: SandboxApi) -> None:
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
        conversation_id: (*end_of(event)[1:], (event["data"]["error"] or {}).get("type"))
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
def test_an_unreachable_api_ends_a_job_as_exhausted(api: SandboxApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_URL", "http://127.0.0.1:1")

    event = lock_conversation("c-42")

    assert end_of(event) == ("conversation.lock_failed", "exhausted", 3)
    assert event["data"]["error"]["type"] == "unreachable"
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
def test_a_job_that_waits_is_not_called_once_it_is_older_than_its_maximum_age(
    api: SandboxApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.script = failing(Respond(status=500))
    monkeypatch.setenv("MAX_ATTEMPTS", "1000")
    monkeypatch.setenv("JOB_MAX_AGE_SECONDS", "0.2")

    event = lock_conversation("c-42")

    assert end_of(event)[1] == "exhausted"
    assert event["data"]["attempts"] == len(api.calls()) < 1000
    assert "JOB_MAX_AGE_SECONDS" in event["data"]["error"]["detail"]


def test_a_dry_run_is_not_called(run: Callable[..., dict[str, Any]], api: SandboxApi) -> None:
    assert end_of(run("c-42", dry_run=True)) == ("conversation.lock_skipped", "would_lock", 0)
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

    assert end_of(how(("c-42",), expires=expires).get()) == ("conversation.lock_skipped", "expired", 0)
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
def test_a_job_that_expires_between_two_calls_is_not_called_again(
    api: SandboxApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.script = failing(Respond(status=500, headers={"Retry-After": "3"}))
    monkeypatch.setenv("RETRY_MAX_DELAY_SECONDS", "3")

    event = lock_conversation.apply(("c-42",), expires=2).get()

    assert end_of(event) == ("conversation.lock_skipped", "expired", 1)
    assert len(api.calls()) == 1


@pytest.mark.usefixtures("own_app")
def test_an_eta_is_not_waited_for(api: SandboxApi) -> None:
    for options in ({"countdown": 3600}, {"eta": datetime.now(UTC) + timedelta(hours=1)}):
        assert end_of(lock_conversation.apply(("c-42",), expires=7200, **options).get())[1] == "locked"
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
    ids=expected_text,
)
def test_invalid_arguments_end_as_rejected_in_process(
    own_app: Celery, api: SandboxApi, args: Any, kwargs: Any, named: str
) -> None:
    own_app.conf.task_always_eager = True
    for event in (
        lock_conversation(*args, **kwargs),
        lock_conversation.apply(args, kwargs).get(),
        lock_conversation.delay(*args, **kwargs).get(),
    ):
        assert end_of(event) == ("conversation.lock_failed", "rejected", 0)
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
    ids=expected_text,
)
def test_invalid_options_end_as_rejected_in_process(
    api: SandboxApi, args: Any, kwargs: Any, *, options: dict[str, Any], named: str
) -> None:
    event = lock_conversation.apply(args, kwargs, **options).get()

    assert end_of(event) == ("conversation.lock_failed", "rejected", 0)
    assert named in event["data"]["error"]["detail"]
    assert not api.calls()


@pytest.mark.usefixtures("own_app")
def test_the_event_of_a_rejected_job_has_the_fields_that_were_understood(api: SandboxApi) -> None:
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
    assert end_of(lock_conversation("c-42"))[1] == "locked"
    assert asyncio.get_running_loop().is_running()
    assert len(api.calls()) == 1


@pytest.mark.usefixtures("own_app")
def test_an_answer_with_a_number_of_any_length_is_returned(api: SandboxApi) -> None:
    answer = '{"id": "c-42", "locked": true, "score": ' + "7" * 5000 + "}"
    api.script = failing(Respond(status=200, body=answer))

    assert lock_conversation("c-42")["data"]["outcome"] == "locked"


@pytest.mark.usefixtures("own_app", "api")
def test_wrong_settings_raise_when_a_job_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_TOKEN")

    with pytest.raises(settings.SettingsError, match="API_TOKEN: is missing"):
        lock_conversation("c-42")
    assert isinstance(lock_conversation.apply(("c-42",)).result, settings.SettingsError)


@pytest.mark.usefixtures("own_app", "api")
def test_celerys_log_has_nothing_that_people_wrote(caplog: pytest.LogCaptureFixture) -> None:
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


def test_the_pages_example_of_a_test_works_as_it_stands(api: SandboxApi) -> None:
    _, testing = page_examples()
    environment = {"API_TOKEN": TOKEN, "API_URL": api.url}

    subprocess.run([sys.executable, "-c", testing], cwd=ROOT, env=environment, check=True)


@pytest.mark.usefixtures("own_app")
@pytest.mark.parametrize(("name", "value"), [("DRY_RUN", "true"), ("RULES_DRY_RUN", "r-6,r-7")])
def test_a_job_that_a_setting_makes_a_dry_run_makes_no_call_in_process(
    api: SandboxApi, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    event = lock_conversation("c-42", rule_id="r-7")

    assert end_of(event)[1] == "would_lock"
    assert event["data"]["job"] == {"conversation_id": "c-42", "rule_id": "r-7"}
    assert not api.calls()
