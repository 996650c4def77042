"""A thread with a share of a core sleeps for work beyond it, and may catch up after it was idle."""

from __future__ import annotations

import pytest

from worker.observe.cpu_share import CpuShare


@pytest.fixture
def share() -> CpuShare:
    return CpuShare(0.25, burst_seconds=1.0, now=100.0)


def test_a_burst_costs_no_sleep(share: CpuShare) -> None:
    assert share.spend(1.0, now=100.0) == 0


def test_work_beyond_the_burst_is_slept_for_by_the_share(share: CpuShare) -> None:
    assert share.spend(1.5, now=100.0) == 2.0


def test_who_slept_for_its_work_may_not_work_at_once_again(share: CpuShare) -> None:
    share.spend(1.5, now=100.0)

    assert share.spend(0.25, now=102.0) == 1.0


def test_idle_time_fills_the_budget_no_further_than_a_burst(share: CpuShare) -> None:
    share.spend(1.0, now=100.0)

    assert share.spend(1.0, now=9_000.0) == 0
    assert share.spend(0.5, now=9_000.0) == 2.0
