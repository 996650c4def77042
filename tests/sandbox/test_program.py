"""``python -m sandbox`` as compose files, benchmarks and chaos runs start it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the program; give the process and the URL that it printed."""
    command = [sys.executable, "-m", "sandbox", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_url_when_ready_and_ends_well_when_asked_to(number: signal.Signals) -> None:
    with program() as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.post(f"{url}/conversations/missing-1/lock").status_code == 200
        process.send_signal(number)
        assert process.wait(10) == 0


def test_its_options_set_latency_faults_and_token() -> None:
    with program("--latency-ms", "20", "--faults", "demo", "--token", "t") as (_, url):
        answer = httpx.post(f"{url}/conversations/missing-1/lock", headers={"Authorization": "Bearer t"})
        assert answer.status_code == 404
        assert httpx.post(f"{url}/conversations/missing-1/lock").status_code == 401
        assert answer.elapsed.total_seconds() >= 0.02


def test_its_faults_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text('{"rules": [{"then": {"kind": "respond", "status": 418}}]}')

    with program("--faults", str(file)) as (_, url):
        assert httpx.post(f"{url}/conversations/c-1/lock").status_code == 418


@pytest.mark.parametrize("content", [None, "{"])
def test_a_file_that_holds_no_script_stops_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "faults.json"
    if content is not None:
        file.write_text(content)

    ended = subprocess.run(
        [sys.executable, "-m", "sandbox", "--faults", str(file)], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert f"{file} holds no script" in ended.stderr


def test_help_names_every_option() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "sandbox", "--help"], capture_output=True, text=True, check=True
    ).stdout

    for option in ("--host", "--port", "--token", "--latency-ms", "--faults"):
        assert option in text
