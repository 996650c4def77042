"""Whether a worker counts as ready."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from tests.cli.terminal import eventually
from worker.broker.records import FleetNews
from worker.flow_control.flow_control import FlowControl
from worker.flow_control.gate_answer import Wait
from worker.runtime.in_flight import InFlight
from worker.runtime.readiness import Readiness


class _Worker:
    """A worker that Redis answers, and whose last take was ten seconds ago."""

    def __init__(self) -> None:
        in_flight = InFlight(8)
        clock: Any = SimpleNamespace(seconds_since_sync=0.0)
        self.clock = clock
        fetcher: Any = SimpleNamespace(last_fetch_at=time.monotonic() - 10)
        self.gates = FlowControl(
            in_flight, name="pod", failures=10, is_rate_limited=False, max_pause=300, changes=lambda: None,
            restore_attempts=lambda _: None, server_ms=lambda: time.time() * 1000,
        ).gates  # fmt: skip
        controls: Any = SimpleNamespace(is_hold_in_force=False)
        self.controls = controls
        self.has_queues = True
        self.readiness = Readiness(
            in_flight=in_flight, fetcher=fetcher, clock=clock, gates=self.gates, has_queues=lambda: self.has_queues,
            controls=controls,
        )  # fmt: skip

    def says(self) -> tuple[list[str], list[str]]:
        return self.readiness.reasons_not_ready(), self.readiness.fleet_held_back_by()


def test_a_worker_that_takes_nothing_although_nothing_holds_it_back_is_not_ready() -> None:
    assert _Worker().says() == (["takes_no_jobs"], [])


def test_a_worker_that_redis_does_not_answer_says_only_that() -> None:
    worker = _Worker()
    worker.clock.seconds_since_sync = 6.0

    assert worker.says() == (["redis_unreachable"], [])


def test_a_worker_is_ready_when_a_pause_has_just_ended() -> None:
    worker = _Worker()
    worker.gates.saw(FleetNews(version=0, epoch=0, rate=0.0, answered=0, failed=0, paused_ms=50, state=None))
    assert isinstance(worker.gates.ask(), Wait)
    assert worker.says() == ([], ["paused"])

    eventually(lambda: not worker.gates.is_paused, "the end of the pause")

    assert worker.says() == ([], [])


def test_a_hold_is_told_and_makes_no_worker_unready() -> None:
    worker = _Worker()
    worker.gates.saw(FleetNews(version=0, epoch=0, rate=0.0, answered=0, failed=0, paused_ms=5000, state=None))
    assert isinstance(worker.gates.ask(), Wait)
    worker.controls.is_hold_in_force = True

    assert worker.says() == ([], ["paused", "held"])


def test_a_worker_whose_queues_were_all_cancelled_is_ready_and_says_so() -> None:
    worker = _Worker()
    worker.has_queues = False

    assert worker.says() == ([], ["queues_cancelled"])


def test_a_worker_without_queues_hears_of_redis_by_the_state_of_the_fleet_alone() -> None:
    worker = _Worker()
    worker.has_queues = False
    worker.clock.seconds_since_sync = 6.0
    assert worker.says() == (["redis_unreachable"], ["queues_cancelled"])

    worker.readiness.note_read()

    assert worker.says() == ([], ["queues_cancelled"])
