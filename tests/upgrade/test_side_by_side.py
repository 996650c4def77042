"""A worker of the release before and one of this version on one queue: each goes on with what the other left."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from random import SystemRandom
from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.chaos.plan import make_plan
from tests.chaos.report import command, headline, report, say
from tests.chaos.round import run_round
from tests.system.stage import Stage, WorkerProcess, eventually
from tests.upgrade.release import NoReleaseError, named_and_tagged_commit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upgrade.release import Release

SECONDS = 10.0
SETTINGS = {"CONCURRENCY": 5, "RETRY_BASE_SECONDS": "0.5", "SHUTDOWN_SECONDS": "0.2", "BREAKER_FAILURES": 0}
#: Jobs of each kind before each change of version.
JOBS = 20
_FAULTS = Script(
    rules=(
        Rule(ids="flaky-*", first_calls=3, then=Respond(status=500)),
        Rule(ids="slow-*", then=Delay(ms=300)),
        Rule(ids="missing-*", then=Respond(status=404)),
    )
)


def send_all_kinds(stage: Stage, part: str) -> list[str]:
    """Jobs that are in flight, delayed, about to be retried, and in a row, when the version changes."""
    jobs = []
    for number in range(JOBS):
        jobs += [stage.send(f"{kind}-{part}-{number}") for kind in ("good", "slow", "flaky", "missing")]
        jobs.append(stage.send(f"later-{part}-{number}", countdown=2))
    return jobs


def older(stage: Stage, release: Release) -> WorkerProcess:
    """A worker of the release before."""
    into_its_folder = ("env", f"--chdir={release.folder}")
    return stage.start_through(into_its_folder, **SETTINGS, **release.environment).wait_ready()


def assert_each_has_one_event(stage: Stage, jobs: list[str]) -> None:
    stage.wait_idle()
    ends = [event["data"]["job_id"] for event in stage.events()]
    assert sorted(ends) == sorted(jobs)
    outcomes = {event["subject"].partition("-")[0]: event["data"]["outcome"] for event in stage.events()}
    assert outcomes == {**dict.fromkeys(("good", "slow", "flaky", "later"), "locked"), "missing": "refused"}


def test_a_rollout_and_a_rollback_leave_no_job_behind(stage: Stage, release: Release) -> None:
    stage.api.script = _FAULTS
    first = older(stage, release)
    jobs = send_all_kinds(stage, "up")
    eventually(lambda: stage.redis.zcard(stage.keys.delayed) > 1, "delayed jobs")

    newer = stage.worker(**SETTINGS)
    assert first.stop() == 0
    jobs += send_all_kinds(stage, "down")
    eventually(lambda: len(stage.events()) > len(jobs) / 2, "half of the events")
    again = older(stage, release)
    newer.kill()

    assert_each_has_one_event(stage, jobs)
    assert again.stop() == 0
    started = [line["version"] for worker in stage.workers for line in worker.lines("worker_started")]
    assert started[0] == started[2] == release.version != started[1]


def test_no_job_is_lost_or_doubled_while_both_versions_run_and_die(tmp_path: Path, release: Release) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(1_000_000))
    plan = make_plan(seed, SECONDS)
    say(f"{headline(plan)}\n  replay    {command(plan, kills_only=False, beside_older=True)}")

    outcome = run_round(plan, tmp_path, release.folder)

    say(report(outcome))
    assert not outcome.violations, f"logs: {tmp_path}"
    lines = [line for log in tmp_path.glob("pod-*.log") for line in log.read_text("utf-8", "replace").splitlines()]
    started = [json.loads(line)["version"] for line in lines if '"event":"worker_started"' in line]
    assert set(started) == {release.version, version("lock-worker")}


def test_the_tag_of_the_release_is_on_the_commit_that_is_tested() -> None:
    try:
        named, tagged = named_and_tagged_commit()
    except NoReleaseError as error:
        pytest.skip(str(error))

    assert named == tagged
