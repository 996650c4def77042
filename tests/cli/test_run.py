"""``lock-worker run`` is ``celery -A worker worker``."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import Terminal, eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_it_becomes_the_worker_and_passes_options_on(terminal: Terminal, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        worker = terminal.start(
            "run", "-c", "7", "-n", "mine@%h", stderr=stderr, API_TOKEN="t", HEALTH_PORT="0", LOG_FORMAT="json"
        )
    with worker:
        try:
            eventually(lambda: " ready." in log.read_text() or worker.poll() is not None, "a worker that is ready")
            worker.send_signal(signal.SIGTERM)
            assert worker.stdout is not None
            printed = worker.stdout.read().decode() + log.read_text()
        finally:
            worker.kill()
    assert worker.returncode == 0
    (started,) = [line for line in map(json.loads, printed.splitlines()) if line["event"] == "worker_started"]
    assert started["concurrency"] == 7
    assert started["node"].startswith("mine@")
    assert started["level"] == "info"


WRONG_STARTS: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "wrong settings": ((), {"CONCURRENCY": "0"}, "CONCURRENCY: "),
    "no token": ((), {}, "API_TOKEN: is missing"),
    "no file with the token": ((), {"API_TOKEN_FILE": "no/such/file"}, "API_TOKEN_FILE: cannot be read"),
    "a format that there is not": ((), {"LOG_FORMAT": "xml", "API_TOKEN": "t"}, "LOG_FORMAT: "),
    "a pool that Celery loads": (("-P", "gevent"), {"API_TOKEN": "t"}, "--pool: "),
    "an option that there is not": (("--nonsense",), {"API_TOKEN": "t"}, "No such option"),
    "a module in its place": ((), {"API_TOKEN": "t"}, "worker.py would be run in its place"),
}


def wrong_start(terminal: Terminal, case: str, **settings: str) -> tuple[str, str]:
    """What it prints on standard error, and what is to be told."""
    options, own, told = WRONG_STARTS[case]
    if "module" in case:
        (terminal.directory / "worker.py").touch()
    ended = terminal.run("run", *options, **{"HEALTH_PORT": "0", **settings, **own})
    assert (ended.returncode, ended.stdout) == (2, "")
    return ended.stderr, told


@pytest.mark.parametrize("case", WRONG_STARTS)
def test_a_wrong_start_is_reported_in_json_as_the_worker_would(terminal: Terminal, case: str) -> None:
    printed, told = wrong_start(terminal, case, LOG_FORMAT="json")

    lines = [json.loads(line) for line in printed.splitlines()]
    assert all(line["level"] == "error" and line["timestamp"] for line in lines)
    assert told in lines[-1]["event"]


@pytest.mark.parametrize("case", sorted({*WRONG_STARTS} - {"a format that there is not"}))
def test_a_wrong_start_is_reported_to_people_in_plain_text(terminal: Terminal, case: str) -> None:
    printed, told = wrong_start(terminal, case, LOG_FORMAT="console")

    assert told in printed
    assert "{" not in printed


def test_without_a_token_it_says_so_and_does_not_start(terminal: Terminal) -> None:
    ended = terminal.run("run")
    assert ended.returncode == 2
    assert "API_TOKEN: is missing" in ended.stderr


def test_a_module_of_the_same_name_in_the_directory_is_not_run_by_mistake(terminal: Terminal) -> None:
    (terminal.directory / "worker.py").write_text("raise SystemExit('somebody else was run')\n")
    ended = terminal.run("run", API_TOKEN="t")
    assert ended.returncode == 2
    assert str(terminal.directory / "worker.py") in ended.stderr
    assert "somebody else was run" not in ended.stderr


def test_options_that_break_a_promise_are_reported_by_the_worker(terminal: Terminal) -> None:
    ended = terminal.run("run", "--purge", API_TOKEN="t", HEALTH_PORT="0")
    assert ended.returncode != 0
    assert "--purge" in ended.stderr
    assert "lock-worker cancel --all ends the jobs that wait" in ended.stderr
