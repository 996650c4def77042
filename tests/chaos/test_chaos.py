"""The short form of the chaos suite: one round from a new seed every time, or from ``CHAOS_SEED``."""

from __future__ import annotations

import os
from random import SystemRandom
from typing import TYPE_CHECKING

from tests.chaos.plan import make_plan
from tests.chaos.report import command, headline, report, say
from tests.chaos.round import run_round

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 20.0


def test_no_job_is_lost_or_doubled_whatever_dies(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(1_000_000))
    plan = make_plan(seed, SECONDS)
    say(f"{headline(plan)}\n  replay    {command(plan)}")

    outcome = run_round(plan, tmp_path)

    say(report(outcome))
    assert not outcome.violations, f"logs: {tmp_path}"
