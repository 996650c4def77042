"""``python -m tests.chaos``: rounds of chaos, one after the other. Ends with 1 if anything was violated.

SIGTERM and Ctrl-C end it with all that it started; the logs are left.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import SystemRandom

from tests.chaos.interrupts import INTERRUPTS
from tests.chaos.invariants import no_job_is_doubled, no_job_is_lost
from tests.chaos.plan import Act, make_plan, on_topology
from tests.chaos.report import command, headline, report, say
from tests.chaos.round import run_round
from tests.chaos.targets import TARGETS
from tests.upgrade.release import install

_ROUND_SECONDS = 100.0
#: What a round takes beside the time of its faults, about.
_BESIDE_SECONDS = 15.0


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds."""
    options = _options(arguments)
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    minutes = options.minutes * 60
    seconds = options.seconds or min(_ROUND_SECONDS, max(10.0, minutes - _BESIDE_SECONDS))
    rounds = options.rounds or max(1, round(minutes / (seconds + _BESIDE_SECONDS)))
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    older = install(folder).folder if options.beside_older else None
    totals: Counter[str] = Counter()
    began = time.monotonic()
    say(f"{rounds} rounds of {seconds:g} s from seed {seed}; logs in {folder}")
    for number in range(rounds):
        plan = make_plan(seed + number, seconds, options.target, kills_only=options.kills_only)
        plan = on_topology(plan, options.topology, redis_only=options.redis_only)
        say(f"round {number + 1}/{rounds}, {headline(plan)}")
        replayed = command(
            plan, kills_only=options.kills_only, redis_only=options.redis_only, beside_older=options.beside_older
        )
        say(f"  replay    {replayed}")
        if options.plan:
            say("\n".join(f"    {fault}" for fault in plan.faults))
        of_round = folder / f"seed-{plan.seed}"
        of_round.mkdir()
        outcome = run_round(plan, of_round, older)
        say(report(outcome))
        totals += Counter(
            rounds=1,
            seconds=round(outcome.seconds),
            faults=len(plan.faults),
            kills=sum(fault.act is Act.KILL for fault in plan.faults),
            stalls=sum(fault.act is Act.STALL for fault in plan.faults),
            redis=sum(fault.act in {Act.REDIS_KILL, Act.REDIS_RESTART} for fault in plan.faults),
            jobs=len({message.job for message in outcome.history.messages}),
            failovers=sum(not each.is_lossless for each in outcome.history.failovers),
            slot_moves=sum(each.is_lossless for each in outcome.history.failovers),
            calls=len(outcome.history.calls),
            forgotten=sum(len(outcome.history.forgotten_jobs(had_replica=each)) for each in (True, False)),
            lost=sum(1 for _ in no_job_is_lost(outcome.history)),
            doubled=sum(1 for _ in no_job_is_doubled(outcome.history)),
            violations=len(outcome.violations),
            failed_rounds=bool(outcome.violations),
        )
        if not outcome.violations and not options.keep:
            shutil.rmtree(of_round)
    say(
        f"{totals['rounds']} rounds in {time.monotonic() - began:.0f} s: {totals['faults']} faults, of them "
        f"{totals['kills']} SIGKILLs, {totals['stalls']} long stalls, {totals['redis']} Redis restarts, "
        f"{totals['failovers']} failovers and {totals['slot_moves']} moves of the slot; "
        f"{totals['jobs']} jobs, {totals['calls']} calls: {totals['lost']} lost, {totals['doubled']} doubled, "
        f"{totals['forgotten']} forgotten as the docs say, "
        f"{totals['violations']} violations in {totals['failed_rounds']} rounds"
    )
    if totals["violations"]:
        say(f"logs of the failed rounds: {folder}")
        return 1
    if not options.keep:
        shutil.rmtree(folder)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="about how long all rounds take (default 2)")
    parser.add_argument("--seed", type=int, help="the first round's seed; each further one adds 1 (default: by chance)")
    parser.add_argument("--rounds", type=int, help="how many rounds, instead of --minutes")
    parser.add_argument("--seconds", type=float, help="how long faults happen in a round")
    parser.add_argument("--target", choices=[*TARGETS], default="lock-worker", help="what is put under test")
    parser.add_argument(
        "--topology", choices=["single", "sentinel", "cluster"], default="single", help="the kind of Redis"
    )
    parser.add_argument("--kills-only", action="store_true", help="the plan of a stock Celery worker: only kills")
    parser.add_argument("--beside-older", action="store_true", help="half of the workers are of the release before")
    parser.add_argument("--redis-only", action="store_true", help="with --topology: what befalls Redis, and no more")
    parser.add_argument("--plan", action="store_true", help="print the faults of each round")
    parser.add_argument("--keep", action="store_true", help="keep the logs of rounds without a violation too")
    options = parser.parse_args(arguments)
    if options.redis_only and options.topology == "single":
        parser.error("--redis-only needs --topology sentinel or cluster")
    return options


if __name__ == "__main__":
    INTERRUPTS.install()
    sys.exit(main())
