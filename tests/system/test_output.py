"""What a worker process writes, whoever writes it: one JSON object a line, and no words of people in it."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.stage import eventually

if TYPE_CHECKING:
    from tests.system.stage import Stage, WorkerProcess

LOGGERS = ("a.library", "celery", "kombu", "asyncio")
WORDS = "private words of a person"
TROUBLES = ("--include", "tests.system.troubles")
HERE = {"PYTHONPATH": Path(__file__).parents[2], "WORDS": WORDS}


def objects(worker: WorkerProcess) -> list[dict[str, Any]]:
    """All that it wrote, each line of it an object."""
    lines = worker.log_file.read_bytes().removesuffix(b"\n").split(b"\n")
    found = [json.loads(line) for line in lines]
    assert all(isinstance(line, dict) and line["event"] and line["timestamp"] for line in found)
    assert all(line.decode("utf-8").isprintable() for line in lines)
    return found


def has_failed_everywhere(worker: WorkerProcess) -> bool:
    return all(name in worker.log for name in ("job_error", "loop_error", "uncaught_error", "ignored_error"))


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_errors_in_whatever_place_show_no_value_of_a_variable(stage: Stage, log_format: str) -> None:
    worker = stage.worker(*TROUBLES, LOG_FORMAT=log_format, MAX_ATTEMPTS=1, **HERE)
    event = stage.event_of(stage.send(fields={"reason": WORDS, "metadata": {"name": WORDS}}))
    eventually(lambda: has_failed_everywhere(worker), "an error in each place")

    worker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "_print_stack" in worker.log, "where each thread stands")

    assert worker.stop() == 0
    assert event["data"]["error"]["type"] == "internal"
    assert all(f"an error in {name}" in worker.log for name in LOGGERS)
    assert worker.log.count("ZeroDivisionError") >= 6
    assert WORDS not in worker.log


def test_each_line_is_one_json_object_whoever_writes_it(stage: Stage) -> None:
    worker = stage.worker(*TROUBLES, LOG_FORMAT="json", MAX_ATTEMPTS=1, **HERE)
    stage.event_of(stage.send())
    eventually(lambda: has_failed_everywhere(worker), "an error in each place")
    worker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: worker.lines("stack"), "where each thread stands")
    assert worker.stop() == 0

    written = objects(worker)

    events = [line["event"] for line in written]
    for text in (
        "to standard output\u2028\x1b",
        "of two parts and a line break",
        "two lines\nin one",
        "past everybody",
        "worker: Warm shutdown (MainProcess)",
        "so many: %d",
    ):
        assert text in events
    assert any("UserWarning: of Python's" in event for event in events)
    assert {line["thread_name"] for line in worker.lines("stack")} >= {"MainThread", "asyncio"}


def test_the_start_tells_what_runs_in_place_of_a_banner(stage: Stage) -> None:
    worker = stage.worker("-c", "7", "-n", "mine@test", LOG_FORMAT="json")

    (told,) = worker.lines("worker_starting")

    assert (told["node"], told["concurrency"], told["queues"]) == ("mine@test", 7, ["moderation.lock"])
    objects(worker)


def test_people_get_the_banner(stage: Stage) -> None:
    worker = stage.worker(LOG_FORMAT="console")

    assert worker.stop() == 0
    assert "[queues]" in worker.log
    assert "\nworker: Warm shutdown (MainProcess)\n" in worker.log


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=lambda how: how.name)
def test_other_ways_to_stop_are_json_too(stage: Stage, how: signal.Signals) -> None:
    worker = stage.worker(LOG_FORMAT="json")

    worker.stop(how)

    assert any("shutdown" in line["event"] for line in objects(worker))


FAILED_STARTS: dict[str, tuple[tuple[str, ...], dict[str, object], str]] = {
    "wrong settings": ((), {"CONCURRENCY": 0, "REDIS_URL": "nowhere"}, "  - CONCURRENCY: "),
    "a wrong format": ((), {"LOG_FORMAT": "xml"}, "  - LOG_FORMAT: "),
    "options that are refused": (("-P", "solo", "--purge"), {}, "  - --purge: "),
    "an option that there is not": (("--nonsense",), {}, "No such option"),
    "a name that nobody has": ((), {"HEALTH_HOST": "no-such-host.invalid", "HEALTH_PORT": 1}, "HEALTH_HOST: "),
    "an error while it is put together": (("--include", "tests.no_such_module"), {}, "no_such_module"),
}


@pytest.mark.parametrize(("options", "settings", "told"), FAILED_STARTS.values(), ids=FAILED_STARTS.keys())
def test_a_start_that_fails_says_so_in_json(
    stage: Stage, options: tuple[str, ...], settings: dict[str, object], told: str
) -> None:
    worker = stage.start(*options, **{"LOG_FORMAT": "json", **settings})

    assert worker.process.wait(20) != 0

    assert told in "\n".join(line["event"] + line.get("exception", "") for line in objects(worker))


def test_a_library_that_cannot_be_loaded_is_reported_in_json(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "tenacity.py").write_text("raise ZeroDivisionError('a broken installation')\n", "utf-8")
    worker = stage.start(LOG_FORMAT="json", PYTHONPATH=tmp_path)

    assert worker.process.wait(20) != 0

    assert any("a broken installation" in line["event"] for line in objects(worker))


def test_a_port_in_use_is_reported_in_json(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = stage.start(LOG_FORMAT="json", HEALTH_HOST="127.0.0.1", HEALTH_PORT=listening.getsockname()[1])
        assert worker.process.wait(20) == 1

    (line,) = objects(worker)
    assert line["event"].startswith("lock-worker does not start: HEALTH_PORT: cannot listen on")


def test_help_is_for_people(stage: Stage) -> None:
    worker = stage.start("--help", LOG_FORMAT="json")

    assert worker.process.wait(20) == 0
    assert "--concurrency" in worker.log
    assert "Usage: " in worker.log.splitlines()[0]
