"""What workers register of themselves, and what is logged where they differ."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from settings import MUST_AGREE, Settings
from worker.runtime.members import (
    Activity,
    ApiError,
    OpenBreaker,
    differences,
    read_member,
)
from worker.runtime.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS = {"LEASE_SECONDS": 30.0, "DEDUPLICATE_SECONDS": 900, "RESULTS_CHANNEL": "results"}


def description(name: str, **changes: Any) -> bytes:
    registry = Registry("x", "1.0", SETTINGS | changes)
    registry.name = name
    return registry.entry(["a queue"]).encode()


def logged(caplog: pytest.LogCaptureFixture) -> list[Mapping[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == "settings_differ"]


def test_each_setting_in_which_others_differ_is_logged_once_with_their_names(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry("me", "1.0", SETTINGS)
    others = [
        ("one", description("lock-1@pod", LEASE_SECONDS=0.5)),
        ("two", description("lock-2@pod", LEASE_SECONDS=0.5)),
    ]

    registry.learn_of(others)
    registry.learn_of(others)

    (line,) = logged(caplog)
    assert (line["setting"], line["here"], line["there"]) == ("LEASE_SECONDS", 30.0, 0.5)
    assert line["workers"] == ["lock-1@pod", "lock-2@pod"]


def test_another_value_of_a_setting_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry("me", "1.0", SETTINGS)

    registry.learn_of([("one", description("lock-1@pod", RESULTS_CHANNEL="elsewhere"))])
    registry.learn_of([("one", description("lock-1@pod", RESULTS_CHANNEL="nowhere"))])

    assert [line["there"] for line in logged(caplog)] == ["elsewhere", "nowhere"]


def test_the_longest_time_in_the_fleet_counts_and_only_while_its_worker_is_there() -> None:
    registry = Registry("me", "1.0", SETTINGS)
    assert registry.longest("DEDUPLICATE_SECONDS") == 900

    registry.learn_of(
        [("one", description("a", DEDUPLICATE_SECONDS=1)), ("two", description("b", DEDUPLICATE_SECONDS=3600))]
    )
    assert registry.longest("DEDUPLICATE_SECONDS") == 3600

    registry.learn_of([("one", description("a", DEDUPLICATE_SECONDS=1))])
    assert registry.longest("DEDUPLICATE_SECONDS") == 900


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff", b"[]", b"7", b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_no_worker_registered_is_none(text: bytes) -> None:
    assert read_member("one", text) is None
    registry = Registry("me", "1.0", SETTINGS)
    registry.learn_of([("one", text)])
    assert registry.longest("LEASE_SECONDS") == 30.0


@pytest.mark.parametrize("value", [[], {}, "a word", True, -1, 1e300, None])
def test_a_time_that_no_worker_can_be_set_to_does_not_count(value: Any) -> None:
    registry = Registry("me", "1.0", SETTINGS)

    registry.learn_of([("one", description("a", LEASE_SECONDS=value))])

    assert registry.longest("LEASE_SECONDS") == 30.0


def test_workers_that_agree_do_not_differ() -> None:
    members = [read_member(worker, description(worker)) for worker in ("one", "two")]

    assert differences([member for member in members if member is not None]) == {}


def test_nothing_secret_is_description() -> None:
    settings = Settings(API_TOKEN="a-token", REDIS_URL="redis://:a-password@h")

    text = Registry("me", "1.0", settings.to_agree_on()).entry([])

    assert json.loads(text)["settings"].keys() == set(MUST_AGREE)
    assert "a-token" not in text
    assert "a-password" not in text


def test_what_a_worker_does_is_read_as_it_was_registered() -> None:
    activity = Activity(
        slots=100,
        in_flight=7,
        breakers=(OpenBreaker("api_down", 1_790_000_000.5),),
        last_error=ApiError(1_790_000_001.0, 500, "The API answered 500."),
    )
    registry = Registry("x", "1.2.3", SETTINGS, activity=lambda: activity)
    registry.name = "lock-1@pod"

    found = read_member("x", registry.entry(["a", "b"]).encode())

    assert found is not None
    assert (found.name, found.version, found.queues) == ("lock-1@pod", "1.2.3", ("a", "b"))
    assert found.host
    assert abs(found.since - time.time()) < 60
    assert found.activity == activity


@pytest.mark.parametrize(
    "activity",
    [
        7, [], {"slots": -1}, {"slots": "many"}, {"breakers": [7, {}]}, {"breakers": {}}, {"last_error": 7},
        {"last_error": {"at": "now", "status": [], "text": None}}, {"in_flight": 1e300}, {"slots": True},
    ],
)  # fmt: skip
def test_an_activity_that_no_worker_registered_can_be_read_all_the_same(activity: Any) -> None:
    found = read_member("one", json.dumps({"name": "n", "queues": [], "settings": {}, "activity": activity}).encode())

    assert found is not None
    assert found.activity.slots in {0, 1}
    assert found.activity.in_flight == 0
    assert all(isinstance(breaker.since, float) for breaker in found.activity.breakers)


def test_a_worker_of_an_earlier_version_that_registers_less_is_read() -> None:
    found = read_member("one", b'{"name": "n", "queues": ["q"], "settings": {}, "since": 1e300, "host": 7}')

    assert found is not None
    assert (found.name, found.version, found.host, found.since, found.activity) == ("n", "", "", 0.0, Activity())


@pytest.mark.parametrize(
    "text",
    [
        b"{}", b'{"name": 1, "queues": [], "settings": {}}', b'{"name": "", "queues": {}, "settings": {}}',
        b'{"queues": [], "settings": []}',
    ],
)  # fmt: skip
def test_a_worker_whose_description_is_of_another_version_is_a_worker_all_the_same(text: bytes) -> None:
    member = read_member("one", text)

    assert member is not None
    assert (member.name, member.queues, member.settings, member.activity.controls) == ("one", (), {}, 0)
