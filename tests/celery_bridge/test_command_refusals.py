"""Which commands of Celery's remote control are refused, and that every argument has its answer."""

from __future__ import annotations

from typing import Any

import pytest

from settings import Settings
from worker.celery_bridge.command_refusals import refusal
from worker.runtime.in_flight import MAX_SLOTS
from worker.runtime.queues import MAX_QUEUES

STREAMS = ("moderation.results", "moderation.dead")
QUEUES = ("moderation.lock",)


def answer(command: str, queues: tuple[str, ...] = QUEUES, **arguments: Any) -> str | None:
    return refusal(command, arguments, queues, STREAMS)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("ping", {}),
        ("revoke", {"task_id": "j-1", "terminate": True}),
        ("terminate", {"task_id": ["j-1", "j-2"], "signal": "TERM"}),
        ("pool_grow", {}),
        ("pool_shrink", {"n": 1000}),
        ("add_consumer", {"queue": "b"}),
        ("add_consumer", {"queue": "b", "exchange": None, "exchange_type": "direct", "routing_key": None}),
        ("cancel_consumer", {"queue": "moderation.lock"}),
        ("enable_events", {}),
        ("query_task", {"ids": ["j-1"]}),
    ],
)
def test_what_makes_sense_is_carried_out(command: str, arguments: dict[str, Any]) -> None:
    assert answer(command, **arguments) is None


@pytest.mark.parametrize(
    "name",
    [
        None, "", 7, ["b"], {"b": 1}, "q" * 201, "two\nlines", "b\x06\x163", "lw:1:b:arrived", "moderation.results",
        "moderation.dead", "unacked", "unacked_index", "_kombu.binding.b", "lock-1@pod.celery.pidbox", "celeryev.x",
    ],
)  # fmt: skip
def test_a_queue_that_no_jobs_can_be_taken_from_is_refused(name: Any) -> None:
    assert str(answer("add_consumer", queue=name)).startswith("add_consumer is refused: queue: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"exchange": 7}, "exchange"), ({"exchange": "x\n"}, "exchange"), ({"routing_key": ["r"]}, "routing_key"),
        ({"exchange_type": "fanout"}, "exchange_type"), ({"exchange_type": []}, "exchange_type"),
        ({"durable": 1}, "durable"),
    ],
)  # fmt: skip
def test_an_option_of_a_queue_that_makes_no_sense_is_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    assert named in str(answer("add_consumer", queue="b", **arguments))


def test_a_worker_takes_from_a_bounded_number_of_queues() -> None:
    many = tuple(f"queue-{number}" for number in range(MAX_QUEUES))

    assert answer("add_consumer", many, queue="queue-7") is None
    assert "cancel one with cancel_consumer" in str(answer("add_consumer", many, queue="one-more"))


@pytest.mark.parametrize("command", ["pool_grow", "pool_shrink"])
@pytest.mark.parametrize("n", ["5", "x", None, 1.5, True, [], float("nan")])
def test_a_number_of_slots_that_is_none_is_refused(command: str, n: Any) -> None:
    assert answer(command, n=n) == f"{command} is refused: n: give a whole number of slots"


@pytest.mark.parametrize("task_id", [None, 7, {}, [1], [["j"]]])
@pytest.mark.parametrize("command", ["revoke", "terminate"])
def test_what_is_no_job_id_is_refused(command: str, task_id: Any) -> None:
    assert "task_id" in str(answer(command, task_id=task_id))


@pytest.mark.parametrize(
    "command",
    [
        "rate_limit",
        "time_limit",
        "autoscale",
        "pool_restart",
        "revoke_by_stamped_headers",
        "election",
        "memsample",
        "memdump",
        "objgraph",
    ],
)
def test_a_command_that_has_no_effect_says_what_to_do_instead(command: str) -> None:
    assert str(answer(command)).startswith(f"{command} has no effect here: ")


@pytest.mark.parametrize("signal", ["WRONG", 1.5, [1], {"a": 1}])
@pytest.mark.parametrize("command", ["revoke", "terminate"])
def test_a_signal_that_is_none_is_refused(command: str, signal: Any) -> None:
    refused = answer(command, task_id="j-1", terminate=True, signal=signal)

    assert str(refused).startswith(f"{command} is refused: signal: ")


def test_a_queue_that_the_worker_does_not_take_from_cannot_be_cancelled() -> None:
    refused = answer("cancel_consumer", ("b", "a"), queue="c")

    assert refused == "cancel_consumer is refused: queue: this worker takes no jobs from 'c'; it takes from: a, b"


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("terminate", {"task_id": "j-1"}, "terminate <signal> [id1"), ("query_task", {}, "missing"),
        ("ping", {"state": 1}, "state"), ("enable_events", {"x" * 1000: 1}, "enable_events"),
    ],
)  # fmt: skip
def test_arguments_that_a_command_does_not_take_are_refused_with_its_usage(
    command: str, arguments: dict[str, Any], named: str
) -> None:
    refused = str(answer(command, **arguments))

    assert refused.startswith(f"{command} is refused: ")
    assert "; it is used as: " in refused
    assert named in refused
    assert len(refused) < 300


def test_a_command_that_there_is_not_is_named() -> None:
    assert str(answer("unlock" * 100)).startswith("there is no command 'unlock")
    assert len(str(answer("unlock" * 100))) < 300


@pytest.mark.parametrize("command", ["enable_events", "disable_events", "heartbeat"])
def test_a_worker_without_events_says_how_to_switch_them_on(command: str) -> None:
    refused = refusal(command, {}, QUEUES, STREAMS, sends_events=False)

    assert str(refused).endswith("with -E")


def test_a_pool_may_grow_as_far_as_its_setting_goes() -> None:
    (bound,) = [each.le for each in Settings.model_fields["CONCURRENCY"].metadata if hasattr(each, "le")]

    assert bound == MAX_SLOTS
