"""The unit of systemd: systemd accepts it, it fits the worker, and a worker says what ``Type=notify`` waits for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from settings import Settings
from tests.deploy.monitoring import DEPLOY, program
from tests.observe.service_manager import ServiceManager, service_manager
from tests.system.stage import Stage, eventually
from worker.runtime.runtime import _CLOSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = DEPLOY / "systemd" / "lock-worker@.service"
OPTIONS = [
    (name, value) for name, _, value in (line.partition("=") for line in UNIT.read_text("utf-8").splitlines()) if value
]


def values(name: str) -> list[str]:
    return [value for option, value in OPTIONS if option == name]


def seconds(name: str) -> float:
    (value,) = values(name)
    return float(value.removesuffix("s"))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as if this checkout were in /opt."""
    unit = tmp_path / UNIT.name
    unit.write_text(
        UNIT.read_text("utf-8").replace("/opt/lock-worker/.venv/bin", str(Path(sys.executable).parent)), "utf-8"
    )
    return unit


def test_systemd_knows_every_option_of_the_unit(installed: Path) -> None:
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", installed], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_little_that_the_service_could_reach(installed: Path) -> None:
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", "--threshold=11", installed],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_what_it_sets_are_settings_and_the_token_comes_as_a_credential() -> None:
    set_by_it = dict(value.split("=", 1) for value in values("Environment"))

    assert set_by_it == {"HEALTH_PORT": "%i", "API_TOKEN_FILE": "%d/managem-token"}
    assert set_by_it.keys() <= Settings.model_fields.keys()
    assert [value.partition(":")[0] for value in values("LoadCredential")] == ["managem-token"]


def test_a_stop_is_given_longer_than_the_worker_takes_for_it() -> None:
    assert seconds("TimeoutStopSec") >= Settings.model_fields["SHUTDOWN_SECONDS"].default + 2 * _CLOSE_SECONDS


def test_the_page_names_the_files_that_the_unit_reads() -> None:
    page = (DEPLOY.parent / "docs" / "deploy-host.md").read_text("utf-8")

    files = {path for _, value in OPTIONS for path in re.findall(r"/etc/lock-worker/[\w-]+", value)}
    assert len(files) == 2
    assert all(path in page for path in files)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with service_manager(str(tmp_path / "notify")) as found:
        yield found


def test_a_worker_tells_systemd_that_it_is_ready_lives_and_stops(stage: Stage, manager: ServiceManager) -> None:
    worker = stage.start(NOTIFY_SOCKET=manager.notify_socket, WATCHDOG_USEC=3_000_000)
    eventually(lambda: "READY=1" in manager.heard(), "a worker that is ready")
    assert stage.outcome_of(stage.send()) == "locked"
    signs = manager.heard().count("WATCHDOG=1")
    eventually(lambda: manager.heard().count("WATCHDOG=1") > signs, "a sign of life")

    assert worker.stop() == 0

    assert "STOPPING=1" in manager.heard()
    assert worker.lines("systemd_not_notified") == []


def test_a_worker_with_a_wrong_setting_ends_before_it_says_that_it_is_ready(
    stage: Stage, manager: ServiceManager
) -> None:
    worker = stage.start(NOTIFY_SOCKET=manager.notify_socket, LEASE_SECONDS="soon")

    assert worker.process.wait(20) != 0
    assert "LEASE_SECONDS" in worker.log
    assert manager.heard() == []
