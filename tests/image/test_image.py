"""One container does its jobs with nothing to write to and no right that it does not need, and ends well."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay
from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.image.containers import IMAGE, ROOT, Containers
from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.image

NAME = "worker"
UID = 10001
#: More than are in flight at once.
SLOW_JOBS = 30
SLOTS = 10
_SLOW = Script(rules=(Rule(ids="slow-*", then=Delay(ms=1000)),))
_PACKAGES = "import importlib.metadata as m; print(*{f'{d.name}=={d.version}' for d in m.distributions()}, sep='\\n')"
_WRITES = """
import os
for folder in ("/", "/opt/lock-worker", "/run/lock-worker", "/tmp"):
    try:
        open(os.path.join(folder, "file"), "w")
        print(folder)
    except OSError:
        pass
"""


class Worker:
    """The container, with the system around it."""

    def __init__(self, containers: Containers, stage: Stage, health_port: int) -> None:
        self.containers = containers
        self.stage = stage
        self.health_port = health_port

    def exec(self, *command: str) -> str:
        """Run a command in the container."""
        return self.containers.run("podman", "exec", NAME, *command)

    def inspect(self) -> dict[str, Any]:
        """What podman knows of the container."""
        (found,) = json.loads(self.containers.run("podman", "inspect", NAME))
        return dict(found)

    @property
    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        return bool(self.stage.redis.hlen(self.stage.keys.workers))

    @property
    def has_ended(self) -> bool:
        """Whether it is there no more."""
        return bool(self.inspect()["State"]["Status"] == "exited")

    @property
    def log(self) -> str:
        """What it has printed so far."""
        ended = self.containers.ended("podman", "logs", NAME)
        return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def worker(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A container that takes jobs; every option here is one that deploy/ sets too."""
    with RedisServer(options={"appendonly": "yes"}) as server, Stage(server.url, tmp_path_factory.mktemp("x")) as stage:
        stage.api.script = _SLOW
        port = free_port("127.0.0.1")
        settings = stage.environment(HEALTH_PORT=port, HEALTH_HOST="127.0.0.1", CONCURRENCY=SLOTS)
        containers.run(
            "podman", "run", "--detach", "--name", NAME, "--network", "host", "--read-only", "--read-only-tmpfs=false",
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            *(argument for name, value in settings.items() for argument in ("--env", f"{name}={value}")),
            IMAGE,
        )  # fmt: skip
        worker = Worker(containers, stage, port)
        eventually(lambda: worker.is_ready or worker.has_ended, "a worker that is ready", 60)
        assert worker.is_ready, worker.log
        yield worker


def test_it_does_a_job(worker: Worker) -> None:
    assert worker.stage.outcome_of(worker.stage.send("c-1")) == "locked"


def test_it_runs_as_nobody_special_and_can_get_no_more_rights(worker: Worker) -> None:
    status = Path(f"/proc/{worker.inspect()['State']['Pid']}/status").read_text("utf-8")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert fields["Uid"].split() == [str(UID)] * 4
    assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Name"] != "sh"  # the worker is the first process, so that a stop reaches it


def test_it_can_write_nowhere(worker: Worker) -> None:
    assert worker.exec("python", "-c", _WRITES) == ""


def test_the_health_check_of_the_image_asks_the_worker(worker: Worker) -> None:
    (image,) = json.loads(worker.containers.run("podman", "image", "inspect", IMAGE))

    assert image["Config"]["User"] == str(UID)
    assert image["Config"]["StopSignal"] == "SIGTERM"
    assert image["Healthcheck"]["Test"] == ["CMD", "lock-worker", "ping"]
    assert worker.containers.ended("podman", "healthcheck", "run", NAME).returncode == 0


def test_the_command_the_metric_and_the_log_tell_the_version_of_the_project(worker: Worker) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.health_port}/metrics", timeout=10) as page:
        metrics = page.read().decode()

    assert worker.exec("lock-worker", "--version") == f"lock-worker {version('lock-worker')}"
    assert f'lock_worker_build_info{{version="{version("lock-worker")}"}} 1.0' in metrics
    started = [line for line in worker.log.splitlines() if '"worker_started"' in line]
    assert [json.loads(line)["version"] for line in started] == [version("lock-worker")]


def test_the_bill_of_materials_names_what_the_image_holds(worker: Worker) -> None:
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True, capture_output=True)
    bill = json.loads((ROOT / "dist" / "sbom.cdx.json").read_text("utf-8"))
    names = {(part["name"].lower().replace("_", "-"), part["version"]) for part in bill["components"]}

    held = {
        tuple(line.lower().replace("_", "-").split("==")) for line in worker.exec("python", "-c", _PACKAGES).split()
    }
    assert held - names == {("lock-worker", version("lock-worker"))}
    # Those for other platforms and Python versions are in the lock too.
    assert bill["metadata"]["component"]["name"] == "lock-worker"


def test_a_stop_drains_it_and_each_job_has_one_event_in_the_end(worker: Worker) -> None:
    stage = worker.stage
    jobs = [stage.send(f"slow-{number}") for number in range(SLOW_JOBS)]
    eventually(lambda: stage.redis.zcard(stage.keys.leases) == SLOTS, "jobs in flight")

    worker.containers.run("podman", "stop", "--time", "30", NAME)

    state = worker.inspect()["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    assert stage.redis.zcard(stage.keys.leases) == 0
    assert stage.jobs_left() > 0
    assert stage.counters().get("crashes", 0) == 0
    worker.containers.run("podman", "start", NAME)
    stage.wait_idle()
    ends = [event["data"]["job_id"] for event in stage.events() if event["data"]["job_id"] in jobs]
    assert sorted(ends) == sorted(jobs)
