"""What workers tell of themselves, and what is said where they differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from settings import MUST_AGREE, Settings
from worker.runtime.registry import Registry, differences, read_member

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS = {"LEASE_SECONDS": 30.0, "DEDUPLICATE_SECONDS": 900, "RESULTS_CHANNEL": "results"}


def registered(node: str, **changes: Any) -> bytes:
    registry = Registry("x", "1.0", SETTINGS | changes)
    registry.node = node
    return registry.entry(["a queue"]).encode()


def said(caplog: pytest.LogCaptureFixture) -> list[Mapping[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == "settings_differ"]


def test_each_setting_in_which_others_differ_is_said_once_with_their_names(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry("me", "1.0", SETTINGS)
    others = [
        ("one", registered("lock-1@pod", LEASE_SECONDS=0.5)),
        ("two", registered("lock-2@pod", LEASE_SECONDS=0.5)),
    ]

    registry.learn_of(others)
    registry.learn_of(others)

    (line,) = said(caplog)
    assert (line["setting"], line["here"], line["there"]) == ("LEASE_SECONDS", 30.0, 0.5)
    assert line["workers"] == ["lock-1@pod", "lock-2@pod"]


def test_another_value_of_a_setting_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry("me", "1.0", SETTINGS)

    registry.learn_of([("one", registered("lock-1@pod", RESULTS_CHANNEL="elsewhere"))])
    registry.learn_of([("one", registered("lock-1@pod", RESULTS_CHANNEL="nowhere"))])

    assert [line["there"] for line in said(caplog)] == ["elsewhere", "nowhere"]


def test_the_longest_time_in_the_fleet_counts_and_only_while_its_worker_is_there() -> None:
    registry = Registry("me", "1.0", SETTINGS)
    assert registry.longest("DEDUPLICATE_SECONDS") == 900

    registry.learn_of(
        [("one", registered("a", DEDUPLICATE_SECONDS=1)), ("two", registered("b", DEDUPLICATE_SECONDS=3600))]
    )
    assert registry.longest("DEDUPLICATE_SECONDS") == 3600

    registry.learn_of([("one", registered("a", DEDUPLICATE_SECONDS=1))])
    assert registry.longest("DEDUPLICATE_SECONDS") == 900


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff", b"[]", b"7", b"{}", b"[" * 100_000, b'{"node": 1, "queues": [], "settings": {}}',
        b'{"node": "n", "queues": {}, "settings": {}}', b'{"node": "n", "queues": [], "settings": []}',
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

    registry.learn_of([("one", registered("a", LEASE_SECONDS=value))])

    assert registry.longest("LEASE_SECONDS") == 30.0


def test_workers_that_agree_do_not_differ() -> None:
    members = [read_member(worker, registered(worker)) for worker in ("one", "two")]

    assert differences([member for member in members if member is not None]) == {}


def test_nothing_secret_is_reported() -> None:
    settings = Settings(API_TOKEN="a-token", REDIS_URL="redis://:a-password@h")

    text = Registry("me", "1.0", settings.to_agree_on()).entry([])

    assert json.loads(text)["settings"].keys() == set(MUST_AGREE)
    assert "a-token" not in text
    assert "a-password" not in text
