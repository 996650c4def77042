"""What a worker process writes, whoever writes it: one JSON object a line, and no words of people in it."""

from __future__ import annotations

import json
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond, WrongBody
from sandbox.free_port import free_port
from sandbox.script import Rule, Script
from tests.system.stage import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.stage import Stage, WorkerProcess

LOGGERS = ("a.library", "celery", "kombu", "asyncio")
WORDS = "private words of a person"
TROUBLES = ("--include", "tests.system.troubles")


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
    worker = stage.worker(*TROUBLES, LOG_FORMAT=log_format, MAX_ATTEMPTS=1, WORDS=WORDS)
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
    worker = stage.worker(*TROUBLES, LOG_FORMAT="json", MAX_ATTEMPTS=1, WORDS=WORDS)
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


def test_the_first_line_tells_what_runs_in_place_of_a_banner_and_the_last_one_what_it_did(stage: Stage) -> None:
    worker = stage.worker("-c", "7", "-n", "mine@test", LOG_FORMAT="json", API_TOKN="private")
    jobs = [stage.send(), stage.send(fields={"dry_run": True})]
    assert [stage.outcome_of(job) for job in jobs] == ["locked", "would_lock"]

    assert worker.stop() == 0

    (told,) = worker.lines("worker_started")
    assert (told["node"], told["concurrency"], told["queues"]) == ("mine@test", 7, ["moderation.lock"])
    assert told["settings"] == {
        "REDIS_URL": "set", "API_URL": stage.api.url, "API_TOKEN": "set", "HEALTH_PORT": 0, "RETRY_BASE_SECONDS": 0.01,
        "ATTEMPT_TIMEOUT_SECONDS": 2.0, "LEASE_SECONDS": 5.0, "SHUTDOWN_SECONDS": 5.0,
    }  # fmt: skip
    (slip,) = worker.lines("setting_unknown")
    assert (slip["setting"], slip["problem"]) == ("API_TOKN", "not a setting; API_TOKEN may be meant")
    (ended,) = worker.lines("worker_stopped")
    assert (ended["reason"], ended["exit_status"], ended["released"]) == ("SIGTERM", 0, 0)
    assert ended["finished"] == {"locked": 1, "would_lock": 1}
    assert objects(worker)[-1] == ended
    assert "private" not in worker.log


def test_people_get_the_banner(stage: Stage) -> None:
    worker = stage.worker(LOG_FORMAT="console")

    assert worker.stop() == 0
    assert "[queues]" in worker.log
    assert "\nworker: Warm shutdown (MainProcess)\n" in worker.log


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGINT,),
        (signal.SIGQUIT,),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGQUIT),
        (signal.SIGINT, signal.SIGINT, signal.SIGINT),
    ],
    ids=lambda signals: "-".join(how.name for how in signals),
)
def test_other_ways_to_stop_are_json_too(stage: Stage, signals: tuple[signal.Signals, ...]) -> None:
    stage.api.script = Script(rules=(Rule(id="slow", then=Delay(ms=2000)),))
    worker = stage.worker(LOG_FORMAT="json", SHUTDOWN_SECONDS=1)
    stage.send("slow")
    eventually(stage.api.calls, "a call under way")

    for number, how in enumerate(signals, 1):
        worker.process.send_signal(how)
        eventually(lambda: worker.process.poll() is not None or worker.log.count("shutdown") >= number, how.name)  # noqa: B023
    worker.process.wait(20)

    lines = objects(worker)
    assert any("shutdown" in line["event"] for line in lines)
    assert lines[-1]["event"] == "worker_stopped"
    assert lines[-1]["reason"].split(", ")[0] == signals[0].name
    assert lines[-1]["released"] == 1


def test_a_worker_that_finds_no_redis_is_json_to_its_end(stage: Stage) -> None:
    worker = stage.start(LOG_FORMAT="json", REDIS_URL=f"redis://:private@127.0.0.1:{free_port('127.0.0.1')}/0")
    eventually(lambda: worker.lines("redis_unavailable"), "a line that tells that it waits")

    assert worker.stop() == 0

    assert objects(worker)[-1]["reason"] == "SIGTERM"
    assert "private" not in worker.log


def test_a_worker_that_is_stopped_by_remote_control_or_finds_an_unfit_server_tells_it(stage: Stage) -> None:
    worker = stage.worker("-n", "remote@test", LOG_FORMAT="json")
    stage.producer.control.shutdown(destination=["remote@test"])
    assert worker.process.wait(20) == 0
    assert objects(worker)[-1]["reason"] == "remote control"

    unfit = stage.start(LOG_FORMAT="json", REDIS_URL=stage.redis_url.replace("redis://", "redis://:wrong@"))
    assert unfit.process.wait(20) == 1
    last = objects(unfit)[-1]
    assert (last["event"], last["reason"], last["exit_status"]) == ("worker_stopped", "redis_unfit", 1)


def test_a_misspelt_name_is_told_where_it_ends_the_start(stage: Stage) -> None:
    worker = stage.start(LOG_FORMAT="json", API_TOKEN="", API_TOKN="private")

    assert worker.process.wait(20) == 1

    (line,) = objects(worker)
    assert "  - API_TOKEN: is missing" in line["event"]
    assert line["event"].endswith("  - API_TOKN: not a setting; API_TOKEN may be meant")
    assert "private" not in worker.log


def test_each_duplicate_of_a_job_that_ended_without_a_lock_is_a_warning_however_many_there_are(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=404)),))
    worker = stage.worker(LOG_FORMAT="json")
    job = stage.send()
    assert stage.outcome_of(job) == "refused"

    for _ in range(50):
        stage.send(task_id=job)
    eventually(lambda: stage.counters().get("deduplicated") == 50, "fifty duplicates")
    assert worker.stop() == 0

    lines = worker.lines("job_duplicate_dropped")
    assert [line["level"] for line in lines] == ["warning"] * 50
    assert {(line["job"], line["conversation"], line["first_outcome"]) for line in lines} == {(job, "c-1", "refused")}
    (finished,) = worker.lines("job_finished")
    assert (finished["conversation"], finished["status"], finished["attempts"]) == ("c-1", 404, 1)


def test_a_flood_of_one_warning_is_a_line_and_a_count_at_the_end(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=WrongBody(what="nulls")),))
    worker = stage.worker(LOG_FORMAT="json")
    for number in range(50):
        stage.send(f"c-{number}")
    stage.wait_events(50)
    assert worker.stop() == 0

    lines = worker.lines("answer_drift")
    fields = {line["field"] for line in lines}
    assert fields
    for field in fields:
        assert [line.get("count") for line in lines if line["field"] == field] == [None, 49], field


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
