"""The commands of docs/deploy-kubernetes.md, with podman in the place of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Delay
from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.image.pods import TOKEN_SECRET, Pods
from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.image.containers import Containers

pytestmark = pytest.mark.image

SLOW_JOBS = 20
SLOTS = 10
_SLOW = Script(rules=(Rule(ids="slow-*", then=Delay(ms=1000)),))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Redis and an API for the pod."""
    with RedisServer(options={"appendonly": "yes"}) as server, Stage(server.url, tmp_path_factory.mktemp("x")) as found:
        found.api.script = _SLOW
        yield found


@pytest.fixture(scope="module")
def pods(containers: Containers, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """The manifests, written and not played yet."""
    made = containers.ended("podman", "pod", "create")
    if made.returncode:
        # Also in CI: it is the machine's cgroups that podman can or cannot use for a pod.
        pytest.skip(f"podman can make no pod on this machine: {made.stderr.strip()}")
    pods = Pods(containers, tmp_path_factory.mktemp("pods"))
    pods.write(
        API_URL=stage.api.url,
        HEALTH_HOST="127.0.0.1",
        HEALTH_PORT=str(free_port("127.0.0.1")),
        CONCURRENCY=str(SLOTS),
    )
    try:
        yield pods
    finally:
        pods.close()


def test_without_the_secret_no_pod_starts(pods: Pods) -> None:
    played = pods.play()

    assert played.returncode != 0
    assert TOKEN_SECRET in played.stderr


def test_the_page_leads_to_a_pod_that_drains_when_it_is_stopped(
    pods: Pods, stage: Stage, containers: Containers
) -> None:
    stage.api.token = pods.keep_secret("first-token", stage.redis_url)
    played = pods.play("--replace")
    assert played.returncode == 0, played.stderr
    eventually(lambda: stage.redis.hlen(stage.keys.workers), "a worker that is ready", 30)

    assert "All is well." in pods.exec("lock-worker", "doctor")
    pods.exec("lock-worker", "enqueue", "--dry-run", "c-42")
    eventually(lambda: len(stage.events()) == 1, "an event")
    assert "would_lock" in pods.exec("lock-worker", "show", "--conversation", "c-42")
    assert_confined(pods)

    # What the kubelet would do a minute after the Secret has changed; podman does nothing.
    stage.api.token = pods.keep_secret("second-token", stage.redis_url)
    folder = Path(json.loads(containers.run("podman", "volume", "inspect", TOKEN_SECRET))[0]["Mountpoint"])
    (folder / "token").write_text(stage.api.token, "utf-8")
    assert stage.outcome_of(stage.send("c-1")) == "locked"

    jobs = [stage.send(f"slow-{number}") for number in range(SLOW_JOBS)]
    eventually(lambda: stage.redis.zcard(stage.keys.leases) == SLOTS, "jobs in flight")
    pods.stop()

    assert stage.redis.zcard(stage.keys.leases) == 0
    ended = {event["data"]["job_id"] for event in stage.events()}
    assert len(ended & {*jobs}) + stage.jobs_left() == SLOW_JOBS
    assert pods.inspect()["State"]["ExitCode"] == 0


def assert_confined(pods: Pods) -> None:
    """The pod has of the manifest what podman can give it."""
    found = pods.inspect()
    status = Path(f"/proc/{found['State']['Pid']}/status").read_text("utf-8")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert fields["Uid"].split() == ["10001"] * 4
    assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["Memory"] == 256 * 2**20
    assert [(mount["Destination"], mount["RW"]) for mount in found["Mounts"]] == [("/run/secrets/lock-worker", False)]
