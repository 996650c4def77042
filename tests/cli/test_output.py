"""Output that cannot be written, or not in the terminal's encoding, ends no command in a traceback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import DEADLINE_SECONDS, Terminal
from tests.loaded_programs import PROGRAM

if TYPE_CHECKING:
    import redis

FULL = Path("/dev/full")
EVENT = {
    "id": "jöb-☃",
    "subject": "c-😀",
    "time": "2026-11-22T15:04:05Z",
    "data": {"job_id": "jöb-☃", "outcome": "locked", "attempts": 1, "error": None},
}
COMMANDS = {
    "status": ["status"],
    "status as JSON": ["status", "--json"],
    "watch": ["watch", "--from-start", "--count", "1"],
    "watch as JSON": ["watch", "--from-start", "--count", "1", "--json"],
    "show": ["show", "--conversation", "c-😀"],
    "show as JSON": ["show", "--conversation", "c-😀", "--json"],
    "dead": ["dead"],
    "dead as JSON": ["dead", "--json"],
    "replay --list": ["replay", "--list"],
    "enqueue": ["enqueue", "c-1"],
    "adopt as JSON": ["adopt", "--list", "--json"],
    "pause": ["pause", "--reason", "x"],
    "holds": ["holds"],
    "cancel as JSON": ["cancel", "job-1", "--reason", "x", "--json"],
    "help": ["--help"],
}

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")


def on_a_full_disk(terminal: Terminal, *arguments: str, errors_too: bool = False) -> tuple[int, str]:
    """Run a command whose output finds no space; its exit status, and what it wrote to standard error."""
    with FULL.open("wb") as full:
        done = subprocess.run(
            [PROGRAM, *arguments],
            stdout=full,
            stderr=full if errors_too else subprocess.PIPE,
            env=terminal.environment,
            cwd=terminal.directory,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    return done.returncode, (done.stderr or b"").decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_reported_in_a_line(terminal: Terminal, redis_client: redis.Redis, command: str) -> None:
    for stream in ("moderation.results", "moderation.dead"):
        redis_client.xadd(stream, {"event": json.dumps(EVENT), "message": b""})

    status, said = on_a_full_disk(terminal, *COMMANDS[command])

    assert status == 1
    first, *account = said.splitlines()
    assert first == "lock-worker: input or output failed: No space left on device"
    assert len(account) <= 1
    assert on_a_full_disk(terminal, *COMMANDS[command], errors_too=True) == (1, "")


def test_jobs_that_were_sent_are_accounted_for_though_the_disk_is_full(terminal: Terminal) -> None:
    _, said = on_a_full_disk(terminal, "enqueue", "c-1", "c-2")
    assert said.endswith("\n2 of 2 jobs arrived\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped_and_json_stays_the_same(
    terminal: Terminal, redis_client: redis.Redis, encoding: str
) -> None:
    redis_client.xadd("moderation.results", {"event": json.dumps(EVENT, ensure_ascii=False)})

    def watch(*options: str) -> str:
        """What is written, as a terminal of this encoding shows it."""
        done = subprocess.run(
            [PROGRAM, "watch", "--from-start", "--count", "1", *options],
            capture_output=True,
            env={**terminal.environment, "PYTHONIOENCODING": encoding},
            cwd=terminal.directory,
            timeout=DEADLINE_SECONDS,
            check=True,
        )
        return done.stdout.decode(encoding)

    assert json.loads(watch("--json")) == EVENT
    assert ("☃" if encoding == "utf-8" else "\\u2603") in watch()


def test_a_file_that_cannot_be_read_to_its_end_is_reported_by_its_name(terminal: Terminal) -> None:
    ended = terminal.run("enqueue", "--file", "/proc/self/mem")
    assert (ended.returncode, ended.stderr) == (2, "lock-worker: --file /proc/self/mem: Input/output error\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["enqueue", "--file"], "lock-worker: --file \\u001b]0;title\\u0007: No such file or directory"),
        (["watch", "--outcome"], "--outcome \\u001b]0;title\\u0007: there are locked, "),
        (["replay", "--error"], "--error \\u001b]0;title\\u0007: there are invalid_job, "),
        (["pause", "--reason", "x", "--for"], "--for \\u001b]0;title\\u0007: write a time"),
    ],
)
def test_what_an_argument_holds_does_not_reach_the_terminal_as_a_command(
    terminal: Terminal, arguments: list[str], told: str
) -> None:
    ended = terminal.run(*arguments, "\x1b]0;title\x07")
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "\x1b" not in ended.stderr
