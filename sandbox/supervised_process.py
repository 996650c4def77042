"""A program that never outlives the process that started it, not even one that was killed (``sandbox.supervisor``)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class SupervisedProcess:
    """A program that runs.

    Args:
        command: the program and its arguments.
        directory: where it runs; removed if this process ends first.
        log: gets its output.

    Attributes:
        pid: its process id; 0: it could not be run.
    """

    def __init__(self, command: Sequence[str], directory: Path, log: IO[bytes]) -> None:
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR), str(directory), *command],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C in a terminal is the starter's to handle: it ends them in order
        )
        assert self._supervisor.stdout is not None  # noqa: S101 - asked for above
        with self._supervisor.stdout as answer:
            self.pid = int(answer.readline() or 0)  # nothing comes when the program cannot be run

    @property
    def is_running(self) -> bool:
        """True while the process exists, even if it is stopped."""
        return self._supervisor.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.is_running and self.pid:  # no process id is 0: that would be our own process group
            with suppress(ProcessLookupError):  # it may end by itself between the two lines
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> None:
        """Wait for its end, and kill it if that takes longer than so many seconds."""
        try:
            self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._supervisor.wait()
        assert self._supervisor.stdin is not None  # noqa: S101 - asked for when it was started
        self._supervisor.stdin.close()

    def close(self, seconds: float) -> None:
        """Kill it, and remove its directory, as if this process had ended; wait for that as :meth:`wait` does."""
        assert self._supervisor.stdin is not None  # noqa: S101 - as above
        self._supervisor.stdin.close()
        self.wait(seconds)
