"""``lock-worker demo`` shows the whole system at work, says so only if it was, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import uuid
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal, eventually

MARK = "LOCK_WORKER_DEMO_TEST"


class Marked:
    """A shell whose processes, and theirs, can be found by a mark in their environment."""

    def __init__(self, directory: Path) -> None:
        self._mark = f"{MARK}={uuid.uuid4()}"
        name, value = self._mark.split("=")
        # Set for something else, as it may be in anybody's shell.
        elsewhere = {
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "LOCK_QUEUE": "elsewhere",
            "CELERY_BROKER_URL": "redis://127.0.0.1:1",
        }
        self.terminal = Terminal({name: value, "TMPDIR": str(directory), **elsewhere}, directory)

    def processes(self) -> list[str]:
        """The command lines of what is running."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has just ended
                continue
        return found


@pytest.fixture
def marked(tmp_path: Path) -> Marked:
    if not Path("/proc/self/environ").exists():
        pytest.skip("processes are found through /proc")
    return Marked(tmp_path)


def test_everything_adds_up_and_nothing_is_left(marked: Marked, tmp_path: Path) -> None:
    ended = marked.terminal.run("demo", "--jobs", "60")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "60 sent = " in ended.stdout
    assert "58 jobs, 58 events" in ended.stdout
    assert "Everything adds up" in ended.stdout
    assert ended.stderr == ""
    assert max(map(len, ended.stdout.splitlines())) <= 100
    assert marked.processes() == []
    assert list(tmp_path.iterdir()) == []


def test_it_fits_a_small_terminal(marked: Marked) -> None:
    status, shown = marked.terminal.run_on_a_terminal("demo", "--jobs", "40", "--latency-ms", "5", columns=40)
    assert status == 0, shown
    assert "Everything adds up" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"^a valid job +(\d+) +\1 locked", plain, re.MULTILINE)
    assert re.search(r"^an unknown field +1 +1 rejected", plain, re.MULTILINE)
    assert "  export REDIS_URL=redis://127.0.0.1:6379/0 API_TOKEN_FILE=/path/to/token" in plain


def test_ctrl_c_stops_all_of_it(marked: Marked, tmp_path: Path) -> None:
    demo = marked.terminal.start("demo", "--jobs", "5000")
    with demo:
        assert demo.stdout is not None
        assert b"5,000 messages" in demo.stdout.readline()
        eventually(lambda: any("celery" in each for each in marked.processes()), "a worker")
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
    assert demo.returncode == 130
    assert marked.processes() == []
    assert list(tmp_path.iterdir()) == []


def test_even_when_it_is_killed_nothing_is_left(marked: Marked) -> None:
    demo = marked.terminal.start("demo", "--jobs", "5000")
    with demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        demo.kill()
        demo.stdout.read()
    eventually(lambda: marked.processes() == [], "the end of all that it started")
