"""Whether a worker counts as ready."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.terminal import eventually
from worker.broker.records import FleetNews
from worker.flow_control.flow_control import FlowControl
from worker.flow_control.gate_answer import Wait
from worker.runtime.in_flight import InFlight
from worker.runtime.readiness import Readiness


@pytest.fixture
def worker() -> tuple[Readiness, FlowControl]:
    """A worker that Redis answers, and whose last take was ten seconds ago."""
    in_flight = InFlight(8)
    flow = FlowControl(
        in_flight, name="pod", failures=10, is_rate_limited=False, max_pause=300, changes=lambda: None,
        restore_attempts=lambda _: None, server_ms=lambda: time.time() * 1000,
    )  # fmt: skip
    parts: dict[str, Any] = {
        "fetcher": SimpleNamespace(last_fetch_at=time.monotonic() - 10),
        "clock": SimpleNamespace(seconds_since_sync=0.0),
    }
    return Readiness(in_flight=in_flight, gates=flow.gates, **parts), flow


def test_a_worker_that_takes_nothing_although_nothing_holds_it_back_is_not_ready(
    worker: tuple[Readiness, FlowControl],
) -> None:
    readiness, _ = worker

    assert readiness.reasons_not_ready() == ["takes_no_jobs"]


def test_a_worker_is_ready_when_a_pause_has_just_ended(worker: tuple[Readiness, FlowControl]) -> None:
    readiness, flow = worker
    flow.gates.saw(FleetNews(0, 0, 0.0, 0, 0, 50, None))
    assert isinstance(flow.gates.ask(), Wait)
    assert (readiness.reasons_not_ready(), readiness.fleet_held_back_by()) == ([], ["paused"])

    eventually(lambda: not flow.gates.is_paused, "the end of the pause")

    assert (readiness.reasons_not_ready(), readiness.fleet_held_back_by()) == ([], [])
