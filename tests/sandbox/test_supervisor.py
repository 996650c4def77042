"""A server ends with the process that started it, however that ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sandbox.processes import DEADLINE_SECONDS, has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary

ROOT = Path(__file__).parents[2]

# Starts a server, says where it is, and waits to be killed, or ends by itself as the {end} says.
PARENT = """
import os, sys, time
from sandbox.redis_server import RedisServer
from sandbox.server_binaries import ServerBinary
server = RedisServer(ServerBinary({name!r}, {version!r}, {path!r}), {{"appendonly": "yes"}})
server.start()
{before}
print(server.pid, server._directory, flush=True)
{end}
"""
WAIT = "sys.stdin.read()"


@contextlib.contextmanager
def parent(
    binary: ServerBinary, *, before: str = "", end: str = WAIT
) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """Run a process that starts a server; give it, the server's process id and the server's directory."""
    code = PARENT.format(name=binary.name, version=binary.version, path=binary.path, before=before, end=end)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            pid, directory = process.stdout.readline().split()
            yield process, int(pid), Path(directory)
        finally:
            process.kill()


def is_removed(directory: Path) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    return not directory.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_its_killed_parent_and_leaves_no_files(
    server_binary: ServerBinary, number: signal.Signals
) -> None:
    with parent(server_binary) as (process, pid, directory):
        process.send_signal(number)
        process.wait()

        assert has_ended(pid)
        assert is_removed(directory)


def test_even_a_paused_server_ends_with_its_killed_parent(server_binary: ServerBinary) -> None:
    with parent(server_binary, before="server.pause()") as (process, pid, directory):
        process.kill()

        assert has_ended(pid)
        assert is_removed(directory)


def test_a_server_that_was_never_closed_ends_with_its_parent(server_binary: ServerBinary) -> None:
    with parent(server_binary, end="") as (process, pid, directory):
        assert process.wait(DEADLINE_SECONDS) == 0

        assert has_ended(pid)
        assert is_removed(directory)


def test_a_forked_child_that_lives_on_does_not_keep_the_server(server_binary: ServerBinary) -> None:
    fork = "child = os.fork()\nif not child: sys.stdin.read(); os._exit(0)"
    with parent(server_binary, before=fork) as (process, pid, _):
        process.kill()

        assert has_ended(pid)
