"""The short form of the chaos suite where Redis has replicas: another server becomes the primary meanwhile."""

from __future__ import annotations

import os
from random import SystemRandom
from typing import TYPE_CHECKING

import pytest

from tests.chaos.plan import ACTS, Act, make_plan, on_topology
from tests.chaos.report import command, headline, report, say
from tests.chaos.round import run_round

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.plan import Topology


@pytest.mark.parametrize(
    ("topology", "seconds", "first"),
    [
        # tests/system/test_sentinel.py has the primary's death.
        pytest.param("sentinel", 10.0, {Act.CUT_OFF, Act.SPLIT}, id="sentinel"),
        # Time for the primary's death, and for a move of its slot too.
        pytest.param("cluster", 18.0, {Act.REDIS_KILL}, id="cluster"),
    ],
)
def test_no_job_is_lost_or_doubled_whichever_server_is_the_primary(
    topology: Topology, seconds: float, first: set[Act], tmp_path: Path
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or _seed_that_begins_with(first, topology))
    plan = on_topology(make_plan(seed, seconds), topology)
    say(f"{headline(plan)}\n  replay    {command(plan)}")

    outcome = run_round(plan, tmp_path)

    say(report(outcome))
    assert not outcome.violations, f"logs: {tmp_path}"
    assert outcome.history.failovers


def _seed_that_begins_with(acts: set[Act], topology: Topology) -> int:
    every = ACTS[topology]
    return next(
        seed for seed in iter(lambda: SystemRandom().randrange(1_000_000), None) if every[seed % len(every)] in acts
    )
