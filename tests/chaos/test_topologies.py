"""The short form of the chaos suite where Redis has replicas: another server becomes the primary meanwhile."""

from __future__ import annotations

import os
from random import SystemRandom
from typing import TYPE_CHECKING

import pytest

from tests.chaos.plan import make_plan, on_topology
from tests.chaos.report import command, headline, report, say
from tests.chaos.round import run_round

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.plan import Topology


#: Time for the primary's death, and in a cluster for a move of its slot too.
@pytest.mark.parametrize(("topology", "seconds"), [("sentinel", 10.0), ("cluster", 18.0)])
def test_no_job_is_lost_or_doubled_whichever_server_is_the_primary(
    topology: Topology, seconds: float, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(1_000_000))
    plan = on_topology(make_plan(seed, seconds), topology)
    say(f"{headline(plan)}\n  replay    {command(plan)}")

    outcome = run_round(plan, tmp_path)

    say(report(outcome))
    assert not outcome.violations, f"logs: {tmp_path}"
    assert outcome.history.failovers
