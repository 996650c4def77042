"""``lock-worker run`` is ``celery -A worker worker``."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

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
    (started,) = [line for line in map(json.loads, printed.splitlines()) if line["event"] == "worker_starting"]
    assert started["concurrency"] == 7
    assert started["node"].startswith("mine@")
    assert started["level"] == "info"


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


def test_options_that_break_a_promise_are_told_by_the_worker(terminal: Terminal) -> None:
    ended = terminal.run("run", "--purge", API_TOKEN="t", HEALTH_PORT="0")
    assert ended.returncode != 0
    assert "--purge" in ended.stderr
