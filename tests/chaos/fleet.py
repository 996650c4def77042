"""Pods with one worker process each, and a tiny controller that starts a new process where one has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.chaos.history import End
from tests.chaos.interrupts import INTERRUPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: What a worker's line that tells its name begins with (`name_tag`).
NAME_TAG = "name-tag "
_READY = " ready."
_TAIL_LINES = 40
_LOOK_SECONDS = 0.01


class Process:
    """A worker process, with its log in a file. With ``installed`` it runs what is installed in that folder."""

    def __init__(
        self,
        pod: str,
        log: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        installed: Path | None = None,
    ) -> None:
        self.pod = pod
        self.log = log
        self.told = ""
        self.told_at = 0.0
        self.was_ready = False
        self.is_stopped = False
        self._name = ""
        with log.open("wb") as out:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "celery", *arguments],
                # The folder comes first, also before that of this process.
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment, "PYTHONPATH": str(installed or "")},
                cwd=installed,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def name(self) -> str:
        """Its name in Redis; empty while it has none yet, and so no jobs."""
        if not self._name:
            text = self.log.read_text("utf-8", "replace")
            self._name = next((line[len(NAME_TAG) :] for line in text.splitlines() if line.startswith(NAME_TAG)), "")
        return self._name

    @property
    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        return _READY in self.log.read_text("utf-8", "replace")

    @property
    def status(self) -> int | None:
        """Its exit status; None while it is there."""
        return self._popen.poll()

    def freeze(self) -> None:
        """SIGSTOP it, and wait until all its threads stand."""
        if self.status is None and not self.is_stopped:
            self._popen.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self.is_stopped = True

    def thaw(self) -> None:
        """Let it go on."""
        if self.is_stopped:
            self.is_stopped = False
            self._popen.send_signal(signal.SIGCONT)

    def tell(self, how: signal.Signals) -> None:
        """Tell it to end."""
        self.told, self.told_at, self.was_ready = how.name, time.time(), self.is_ready
        self._popen.send_signal(how)

    def abort(self) -> None:
        """End it with SIGABRT, so that its log shows where each of its threads stood."""
        self._popen.send_signal(signal.SIGABRT)
        self._popen.wait()

    def close(self) -> None:
        """End it, whatever it does."""
        if self.status is None:
            self._popen.kill()
        self._popen.wait()

    def end(self) -> End:
        """How it ended."""
        now = time.time()
        return End(
            pod=self.log.stem,
            at=now,
            status=self.status or 0,
            told=self.told,
            was_ready=self.was_ready,
            seconds=now - self.told_at,
            log_tail="\n".join(self.log.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:]),
        )


class Fleet:
    """The pods of a round.

    Args:
        folder: where the logs go.
        arguments: what follows ``python -m celery``.
        environment: what the workers find in it.
        on_end: told each process that has ended by itself or in answer to SIGTERM, before its successor starts.
        older: the folder of an older release; every second process that starts is one of that.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        on_end: Callable[[Process], None],
        *,
        older: Path | None = None,
    ) -> None:
        self.ends: list[End] = []
        self.started = 0
        self._folder = folder
        self._arguments = arguments
        self._environment = environment
        self._on_end = on_end
        self._older = older
        self._processes: list[Process] = []

    def start(self, pods: int) -> None:
        """Start so many pods."""
        for number in range(pods):
            with INTERRUPTS.deferred():
                self._processes.append(self._start(f"pod-{number}"))

    def process(self, pod: int) -> Process:
        """The process that is in a pod at the moment."""
        return self._processes[pod]

    @property
    def living(self) -> set[str]:
        """The names in Redis of the processes that live, and are not killed just now."""
        return {each.name for each in self._processes if each.status is None and each.told != signal.SIGKILL.name}

    @property
    def are_ready(self) -> bool:
        """Whether all take jobs."""
        return all(process.is_ready for process in self._processes)

    def tend(self) -> None:
        """Start a new process where one has ended."""
        for number, process in enumerate(self._processes):
            if process.status is not None:
                self._note_end(process)
                with INTERRUPTS.deferred():
                    self._processes[number] = self._start(process.pod)

    def thaw(self) -> None:
        """Let all go on."""
        for process in self._processes:
            process.thaw()

    def stop(self, seconds: float) -> None:
        """Tell all to end, by SIGTERM, and wait for it; who does not in time is aborted, and its status shows it."""
        for process in self._processes:
            if process.status is None and not process.told:
                process.tell(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        waiting = list(self._processes)
        while waiting:
            for process in list(waiting):
                if process.status is None and time.monotonic() > deadline:
                    process.abort()
                if process.status is not None:
                    self._note_end(process)
                    waiting.remove(process)
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """End all, whatever they do."""
        for process in self._processes:
            process.close()

    def _start(self, pod: str) -> Process:
        self.started += 1
        log = self._folder / f"{pod}-{self.started:03d}.log"
        older = self._older if self.started % 2 else None
        return Process(pod, log, self._arguments, self._environment(), older)

    def _note_end(self, process: Process) -> None:
        self.ends.append(process.end())
        if process.told != signal.SIGKILL.name:
            self._on_end(process)
