"""The report of a round tells what happened to a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.doctored import BEGAN, KILL, doctored, doubled, event, failed_over, loses, lost, message
from tests.chaos.history import Failover
from tests.chaos.invariants import violations
from tests.chaos.report import report
from tests.chaos.round import Outcome

if TYPE_CHECKING:
    from pathlib import Path


def test_a_report_shows_what_happened_to_a_job_and_what_the_workers_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "pod-0-001.log").write_text('{"event": "lease_lost", "job": "good-1"}\n')
    history = doctored([loses(KILL), failed_over(), doubled])

    shown = report(Outcome(history.plan, history, violations(history), 3, 12.5, tmp_path))

    assert "1 doubled" in shown
    assert "! no_job_is_doubled: good-1: 2 events: locked, locked" in shown
    assert "a failover: at most 0.1 s without an event" in shown
    for line in (
        "0.100 s  sent",
        "1.000 s  called, answered 200",
        "1.050 s  pod-0-001: SIGKILL of a worker",
        "lease_lost",
    ):
        assert line in shown


def test_a_report_tells_what_a_primary_that_was_cut_off_took_with_it(tmp_path: Path) -> None:
    history = doctored([lost])
    history.messages[0] = message("good-1", is_sure=False, is_at_primary=True)
    published = frozenset({b"an event of good-1 at the old primary", event("good-2").body})
    history.failovers.append(Failover("a cut", BEGAN + 0.05, BEGAN + 5, published=published))

    shown = report(Outcome(history.plan, history, [], 3, 12.5, tmp_path))

    told = "1 jobs that the old primary alone had acknowledged, 1 events that it had published"
    assert f"without an event; forgotten: {told}" in shown
