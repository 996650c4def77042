"""The chaos command that is told to end leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sandbox.processes import has_ended
from tests.system.stage import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that these have."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from children(child)


def are_at_work(folder: Path) -> bool:
    """Whether both workers take jobs."""
    logs = [*folder.glob("chaos-*/seed-*/pod-*.log")]
    return len(logs) > 1 and all(" ready." in log.read_text("utf-8", "replace") for log in logs)


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_its_workers_and_servers_when_it_is_told_to_end(
    number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seed", "7", "--rounds", "2", "--seconds", "60"]
    with (tmp_path / "output").open("wb") as out:
        chaos = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=out, stderr=out)
    started: list[int] = []
    try:
        eventually(lambda: are_at_work(tmp_path), "the workers to be ready", seconds=60)
        started = [*children(chaos.pid)]
        chaos.send_signal(number)

        assert chaos.wait(60) == 128 + number
        assert len(started) > 3  # two workers, and a server with its supervisor
        assert all(has_ended(pid) for pid in started)
        assert "Traceback" not in (tmp_path / "output").read_text()
    except BaseException:
        for pid in [chaos.pid, *started]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        chaos.wait()
        raise
