"""From a real worker to a pager: the alerts of ``deploy`` as an operator gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.faults import Respond
from sandbox.free_port import free_port
from sandbox.script import Rule, Script
from tests.deploy.monitoring import HOST, alertmanager, pager, prometheus
from tests.system.stage import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.stage import Stage


def test_the_pager_hears_of_an_outage_and_its_end_and_of_a_worker_that_is_gone(stage: Stage, tmp_path: Path) -> None:
    port = free_port(HOST)
    worker = stage.worker(HEALTH_HOST=HOST, HEALTH_PORT=port, BREAKER_FAILURES=3)
    with (
        pager() as told,
        alertmanager(tmp_path, told.port) as alerts,
        prometheus(tmp_path, [port], alertmanager=alerts) as metrics,
    ):
        eventually(lambda: metrics.number("min(up)") == 1, "a target that is up")
        stage.send("before")
        stage.wait_events(1)
        # A slow start may have looked like a worker that is missing.
        eventually(lambda: not metrics.query('ALERTS{alertstate="firing"}'), "no alert")

        stage.api.script = Script(rules=(Rule(then=Respond(status=500)),))
        for number in range(10):
            stage.send(f"c-{number}")

        (alert, *_) = eventually(lambda: told.heard("LockWorkerApiDown", "firing"), "an alert")
        assert alert["labels"]["severity"] == "critical"
        assert alert["labels"]["job"] == "lock-worker"
        assert alert["annotations"]["runbook_url"] == "docs/runbook.md#lockworkerapidown"
        assert alert["annotations"]["description"].endswith("Processes that do: 1.")

        stage.api.script = Script()

        eventually(lambda: told.heard("LockWorkerApiDown", "resolved"), "the end of the alert", seconds=30)
        stage.wait_events(11)

        told.told.clear()
        worker.kill()

        eventually(lambda: told.heard("LockWorkerMetricsMissing", "firing"), "an alert")
