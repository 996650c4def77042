"""Processes of the benchmark: started with a log in a file, measured from /proc, ended for good. Linux only.

Each is the leader of a session of its own, and what it starts belongs to that session. So the processes of a worker,
forked children too, are those of its session, and ending it ends them all, by their ids.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_TERM_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What all processes of a session hold, in MiB.

    Attributes:
        pss_mib: memory with each shared page counted in parts, so that forked children are not charged twice for it.
        peak_rss_mib: the sum of each process's largest resident size; shared pages count once for each process.
    """

    pss_mib: float
    peak_rss_mib: float


def cpu_seconds(session: int) -> float:
    """User and system time of all processes of a session so far, with those that have ended.

    A process's number comes in steps of 10 ms.
    """
    return sum(ticks for _, ticks in _members(session, ended_too=True)) / _TICKS


def cpu_of(pid: int) -> float:
    """User and system time of one process so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def machine_cpu_seconds() -> float:
    """User and system time of everything on this machine so far, over all cores."""
    fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / _TICKS


def memory(session: int) -> Memory:
    """What a session holds now. Costs about a millisecond a process, during which that process may have to wait."""
    pss = peak = 0
    for pid, _ in _members(session):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            pss += _kib(_PROC / str(pid) / "smaps_rollup", "Pss:")
            peak += _kib(_PROC / str(pid) / "status", "VmHWM:")
    return Memory(pss_mib=pss / 1024, peak_rss_mib=peak / 1024)


def resident_mib(pid: int) -> float:
    """The resident size of one process now, in MiB."""
    return _kib(_PROC / str(pid) / "status", "VmRSS:") / 1024


def count(session: int) -> int:
    """How many processes a session has."""
    return len(_members(session))


class Process:
    """A program in a session of its own, with its output in a file. Ended when the ``with`` is left."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        pipes: bool = False,
    ) -> None:
        self.log = log
        inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                list(arguments),
                cwd=directory,
                env={**inherited, **environment},
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                start_new_session=True,
                text=True,
            )
        self.pid = self.popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it is there; its children may be while it is not."""
        return self.popen.poll() is None

    def tail(self, lines: int = 15) -> str:
        """The last lines that it logged."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self) -> None:
        """Ask it to end, and kill what is left of its session after a while."""
        if self.is_running:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(_TERM_SECONDS)
        for pid, _ in _members(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def kill(self) -> None:
        """End it at once, with all its session."""
        for pid, _ in _members(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _members(session: int, *, ended_too: bool = False) -> list[tuple[int, int]]:
    """Each process of a session, with its CPU time in ticks; those too that ended and were not waited for yet."""
    found: list[tuple[int, int]] = []
    for entry in os.listdir(_PROC):  # noqa: PTH208 - a few hundred names, ten times a second
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields and int(fields[3]) == session and (ended_too or fields[0] != "Z"):
                found.append((int(entry), sum(int(field) for field in fields[11:15])))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name: state, parent, group, session, ..."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _kib(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0
