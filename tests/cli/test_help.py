"""What is printed to who asks for help."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import Terminal, python
from worker.observe.process_metrics import BUILD

if TYPE_CHECKING:
    from pathlib import Path

STEERING = ["pause", "resume", "hold", "release", "holds", "cancel"]
SEEING = ["watch", "show", "status", "workers", "audit", "doctor", "ping", "exporter"]
COMMANDS = ["run", "enqueue", *SEEING, "dead", "replay", *STEERING, "adopt", "demo"]
#: Those that look into Redis, with the arguments that they need.
WITH_REDIS = {
    "status": [],
    "workers": [],
    "watch": [],
    "show": ["job-1"],
    "audit": [],
    "enqueue": ["c-1"],
    "dead": [],
    "replay": ["--all"],
    "adopt": [],
    "pause": ["--reason", "x"],
    "resume": [],
    "hold": ["--rule", "r", "--reason", "x"],
    "release": ["--rule", "r"],
    "holds": [],
    "cancel": ["job-1", "--reason", "x"],
}


def test_help_lists_the_commands(tmp_path: Path) -> None:
    shown = Terminal({}, tmp_path).run("--help")
    assert shown.returncode == 0
    assert [command for command in COMMANDS if f"\n  {command} " in shown.stdout] == COMMANDS


def test_help_describes_each_command_in_a_whole_sentence(tmp_path: Path) -> None:
    listed = Terminal({}, tmp_path).run("--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    assert [line for line in listed.splitlines() if not line.endswith(".") or line.endswith("...")] == []


def test_it_tells_its_version_which_is_that_of_the_metric(tmp_path: Path) -> None:
    shown = Terminal({}, tmp_path).run("--version")

    assert (shown.returncode, shown.stdout) == (0, f"lock-worker {version('lock-worker')}\n")
    assert next(iter(BUILD.collect())).samples[0].labels == {"version": version("lock-worker")}


@pytest.mark.parametrize("arguments", [["--version", "--json"], ["--json", "--version"]], ids=" ".join)
def test_it_tells_its_version_as_json_too(arguments: list[str], tmp_path: Path) -> None:
    shown = Terminal({}, tmp_path).run(*arguments)

    assert (shown.returncode, json.loads(shown.stdout)) == (0, {"version": version("lock-worker")})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json"], "--json goes with --version here; that of a command stands behind its name"),
        (["--json", "status"], "--json goes with --version here; that of a command stands behind its name"),
        ([], "Usage: lock-worker"),
    ],
    ids=str,
)
def test_without_a_command_it_says_what_to_write(arguments: list[str], said: str, tmp_path: Path) -> None:
    shown = Terminal({}, tmp_path).run(*arguments)

    assert shown.returncode == 2
    assert said in " ".join((shown.stdout + shown.stderr).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_an_example(command: str, tmp_path: Path) -> None:
    shown = Terminal({}, tmp_path).run(command, "--help")
    assert shown.returncode == 0
    assert re.search(rf"Example: (\w+=\S+ )?lock-worker {command}", shown.stdout)
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_help_is_quick_because_nothing_slow_is_imported() -> None:
    code = "import json, sys, worker.cli.main; print(json.dumps(list(sys.modules)))"
    assert {"redis", "celery", "kombu", "pydantic", "rich", "aiohttp"} & set(json.loads(python(code))) == set()


@pytest.mark.parametrize("command", WITH_REDIS)
def test_wrong_settings_are_one_message_that_names_them_all(command: str, tmp_path: Path) -> None:
    wrong = {"REDIS_URL": "http://user:hunter2@localhost", "LOCK_QUEUE": "moderation.results"}
    ended = Terminal(wrong, tmp_path).run(command, *WITH_REDIS[command])
    assert ended.returncode == 2
    assert ended.stderr.startswith("lock-worker: ")
    assert "REDIS_URL: must start with redis://" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr


@pytest.mark.parametrize("command", WITH_REDIS)
def test_a_redis_that_is_away_is_one_line_without_the_password(command: str, tmp_path: Path) -> None:
    away = Terminal({"REDIS_URL": "redis://user:hunter2@127.0.0.1:1/0"}, tmp_path)
    ended = away.run(command, *WITH_REDIS[command])
    assert ended.returncode == 1
    assert ended.stderr.startswith("lock-worker: Redis at 127.0.0.1:1/0: ")
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout


@pytest.mark.parametrize("command", WITH_REDIS)
def test_a_wrong_password_is_reported_without_showing_it(command: str, terminal: Terminal) -> None:
    url = terminal.environment["REDIS_URL"].replace("redis://", "redis://nobody:hunter2@")
    ended = terminal.run(command, *WITH_REDIS[command], REDIS_URL=url)
    assert ended.returncode == 1
    assert ended.stderr.startswith("lock-worker: Redis at 127.0.0.1:")
    assert "hunter2" not in ended.stderr + ended.stdout
