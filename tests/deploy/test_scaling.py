"""What KEDA would read while no worker runs: jobs that wait for their time ask for no worker before it has come."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sandbox.free_port import free_port
from tests.cli.terminal import Terminal
from tests.deploy.manifests import of_kind
from tests.deploy.monitoring import HOST, prometheus
from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

(SCALED,) = of_kind("overlays/production", "ScaledObject")
WORKABLE, IN_FLIGHT = (
    trigger["metadata"]["query"].replace('namespace="moderation",', "") for trigger in SCALED["spec"]["triggers"]
)


@contextmanager
def exporter(stage: Stage) -> Iterator[int]:
    """``lock-worker exporter`` on the stage's Redis; gives its port."""
    port = free_port(HOST)
    terminal = Terminal({"REDIS_URL": stage.redis_url}, stage.folder)
    process = terminal.start("exporter", HEALTH_HOST=HOST, HEALTH_PORT=str(port))
    try:
        yield port
    finally:
        process.terminate()
        process.communicate()


def test_a_job_asks_for_a_worker_that_looks_at_it_and_then_not_before_it_is_due(stage: Stage, tmp_path: Path) -> None:
    with exporter(stage) as port, prometheus(tmp_path, [port]) as watched:
        stage.send(countdown=3600)
        eventually(lambda: watched.number(WORKABLE) == 1, "a new job, whose eta nobody knows")

        worker = stage.worker()
        soon = stage.send(countdown=4)
        eventually(lambda: stage.redis.zcard(stage.keys.delayed) == 2, "two jobs that wait for their eta")
        assert worker.stop() == 0
        eventually(lambda: watched.number('lock_worker_queue_jobs{state="due"}') == 1, "a job that is due")
        assert watched.number(WORKABLE) == 1
        assert watched.number(IN_FLIGHT) == 0

        stage.worker()
        assert stage.outcome_of(soon) == "locked"
        eventually(lambda: watched.number(WORKABLE) == 0, "no job that asks for a worker")
        assert stage.redis.zcard(stage.keys.delayed) == 1
