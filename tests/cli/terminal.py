"""Runs ``lock-worker`` as a shell does: a process of its own, in an empty directory, with an environment of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from settings import Settings
from tests import loaded_programs
from tests.loaded_programs import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DEADLINE_SECONDS = 60.0


class Terminal:
    """A shell's environment and directory."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        # Neither the settings of whoever runs the tests nor the size of their terminal is this one's.
        foreign = {*Settings.model_fields, "COLUMNS", "LINES", "LOGNAME", "USER", "LNAME", "USERNAME"}
        mine = {name: value for name, value in os.environ.items() if name not in foreign}
        self.environment = {**mine, **environment}
        self.directory = directory

    def run(self, *arguments: str, text: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with this text on its standard input.

        It is forked from a process that has loaded the program, unless only a new Python can show what is asked for.
        """
        whole = {**self.environment, **environment}
        if text or not loaded_programs.can_run(whole):
            return self.execute(*arguments, text=text, **environment)
        return _decoded(loaded_programs.run(arguments, whole, self.directory, DEADLINE_SECONDS))

    def execute(self, *arguments: str, text: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as a shell does: each run loads the program."""
        return _decoded(
            subprocess.run(
                [PROGRAM, *arguments],
                input=text.encode() if isinstance(text, str) else text,
                capture_output=True,
                env={**self.environment, **environment},
                cwd=self.directory,
                timeout=DEADLINE_SECONDS,
                check=False,
            )
        )

    def start(
        self, *arguments: str, stderr: IO[bytes] | int = subprocess.DEVNULL, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a command; its standard output is a pipe."""
        return subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**self.environment, **environment},
            cwd=self.directory,
        )

    def run_on_a_terminal(self, *arguments: str, columns: int = 80, rows: int = 24) -> tuple[int, str]:
        """Run a command to its end on a terminal of this size; its exit status, and all that was written there."""
        with self._on_a_terminal(arguments, columns, rows) as (process, ours):
            written = b""
            with suppress(OSError):  # Linux says so when the last writer is gone
                while piece := os.read(ours, 65_536):
                    written += piece
            return process.wait(DEADLINE_SECONDS), written.decode()

    @contextmanager
    def screen(self, *arguments: str, columns: int = 80, rows: int = 40) -> Iterator[Screen]:
        """Start a command on a terminal of this size, and end it."""
        with self._on_a_terminal(arguments, columns, rows) as (process, ours):
            try:
                yield Screen(process, ours)
            finally:
                process.kill()

    @contextmanager
    def _on_a_terminal(
        self, arguments: tuple[str, ...], columns: int, rows: int
    ) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """Start a command on a terminal of this size; the process, and the side of the terminal that a person sees."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, columns))
        with subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**self.environment, "TERM": "xterm-256color"},
            cwd=self.directory,
        ) as process:
            os.close(theirs)
            try:
                yield process, ours
            finally:
                os.close(ours)


def _decoded(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Screen:
    """A terminal on which a command runs."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor

    def wait_for(self, text: str) -> None:
        """Wait until a text is written, without regard to how lines end."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        written = ""
        while text not in written:
            assert time.monotonic() < deadline, f"waited in vain for {text!r}: {written!r}"
            if select.select([self._descriptor], [], [], 0.1)[0]:
                piece = os.read(self._descriptor, 65_536).decode(errors="replace")
                written += piece.replace("\x1b[K", "").replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """As the keyboard does."""
        os.write(self._descriptor, text.encode())

    def interrupt(self) -> None:
        """As Ctrl-C does, once the command waits for something.

        Python sees a signal that comes right before it begins to wait only when it has waited. No hand is that quick.
        """
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._is_asleep():
            assert time.monotonic() < deadline, "the command never waits"
            time.sleep(0.01)
        self._process.send_signal(signal.SIGINT)

    def _is_asleep(self) -> bool:
        stat = Path(f"/proc/{self._process.pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "SZ"

    def wait(self) -> int:
        """Return the exit status, once the command has ended."""
        return self._process.wait(DEADLINE_SECONDS)


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)
