"""A worker killed at any point of a job's life leaves a state from which the next one ends the job with one event.

What it costs is told too: how often the API was called, and what the event and the counters say of it. No test waits
for a lease or a delay: where time must have passed, the moment in Redis is set back.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.system.crash_point import POINTS
from tests.system.operator import cancel, hold_all, release_all
from tests.system.stage import RESULTS, Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

HELPER = ("--include", "tests.system.crash_point")
FAILS_ONCE = Script(rules=(Rule(nth_call=1, then=Respond(status=500, headers={"Retry-After": "60"})),))
ANSWERS_LATE = Script(rules=(Rule(nth_call=1, then=Delay(ms=60_000)),))
#: Long leases, so that no lease passes by itself however slow the machine is.
PATIENT = {"LEASE_SECONDS": 60, "ATTEMPT_TIMEOUT_SECONDS": 30}


@dataclass(frozen=True)
class Crash:
    """Where workers are killed one after the other, and what comes of the job in the end.

    A job on hold is released before the last of the workers comes, or while a worker that is to be killed has set it
    aside.
    """

    points: tuple[str, ...]
    calls: int
    attempts: int
    crashes: int
    outcome: str = "locked"
    script: Script = field(default=Script(), repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_stopped: bool = False
    is_held: bool = False
    is_released_before: bool = False
    is_cancelled: bool = False
    is_dead_letter: bool = False

    def __str__(self) -> str:
        return ", and then ".join(self.points)


CRASHES = [
    Crash(("taken, but the answer was not read",), calls=1, attempts=1, crashes=1),
    Crash(("taken, but the message was not read",), calls=1, attempts=1, crashes=1),
    Crash(("read, but the id was not claimed",), calls=1, attempts=1, crashes=1),
    Crash(("claimed, but not called",), calls=1, attempts=1, crashes=1),
    # From here on until Redis has the event, the next worker calls again; a dead worker's call is not counted.
    Crash(("called, but not answered",), calls=2, attempts=1, crashes=1),
    Crash(("answered, but nothing decided",), calls=2, attempts=1, crashes=1),
    Crash(("decided, but not completed",), calls=2, attempts=1, crashes=1),
    Crash(("completed, but the answer was not read",), calls=1, attempts=1, crashes=0),
    Crash(("to be put aside, but nothing sent",), calls=2, attempts=1, crashes=1, script=FAILS_ONCE),
    Crash(("put aside, but the answer was not read",), calls=2, attempts=2, crashes=0, script=FAILS_ONCE),
    Crash(("promoted, but not taken",), calls=2, attempts=2, crashes=0, script=FAILS_ONCE),
    Crash(
        ("to be released, but nothing sent",),
        calls=2, attempts=1, crashes=1, script=ANSWERS_LATE, is_stopped=True,
    ),
    Crash(
        ("released, but the answer was not read",),
        calls=2, attempts=2, crashes=0, script=ANSWERS_LATE, is_stopped=True,
    ),
    Crash(("to be held, but nothing sent",), calls=1, attempts=1, crashes=1, is_held=True),
    Crash(("held, but the answer was not read",), calls=1, attempts=1, crashes=0, is_held=True),
    Crash(
        ("released from hold, but not taken",),
        calls=1, attempts=1, crashes=0, is_held=True, is_released_before=True,
    ),
    Crash(
        ("cancelled id seen, but not completed",),
        # The dead worker may have called, so the event says that the conversation may be locked.
        calls=0, attempts=0, crashes=1, outcome="cancelled", is_dead_letter=True, is_cancelled=True,
    ),
    Crash(("claimed, but not called", "recovered, but not taken"), calls=1, attempts=1, crashes=1),
    Crash(("called, but not answered", "called, but not answered"), calls=3, attempts=1, crashes=2),
    Crash(
        ("claimed, but not called", "claimed, but not called", "found poisoned, but not completed"),
        calls=0, attempts=0, crashes=3, outcome="poisoned", is_dead_letter=True, settings={"MAX_DELIVERIES": 1},
    ),
]  # fmt: skip


@pytest.mark.parametrize("crash", CRASHES, ids=str)
def test_a_job_ends_with_one_event_wherever_its_worker_is_killed(stage: Stage, crash: Crash) -> None:
    stage.api.script = crash.script
    job = stage.send("c-1")
    settings = {"SHUTDOWN_SECONDS": 1, **PATIENT, **crash.settings}
    if crash.is_held:
        hold_all(stage)
    if crash.is_cancelled:
        cancel(stage, job)

    # when workers are killed
    for point in crash.points:
        worker = stage.start(*HELPER, CRASH_POINT=point, **settings)
        if crash.is_stopped:
            eventually(stage.api.calls, "a call")
            worker.process.send_signal(signal.SIGTERM)
        if crash.is_released_before:
            eventually(lambda: stage.redis.zcard(stage.keys.held), "a job on hold")
            release_all(stage)
        wait_killed(stage, worker)

    # then the next one ends the job
    stage.worker(**settings)
    if crash.is_held and not crash.is_released_before:
        eventually(lambda: time_passes(stage) and stage.redis.zcard(stage.keys.held), "a job on hold")
        assert stage.api.calls() == []
        release_all(stage)
    eventually(lambda: time_passes(stage) and stage.redis.xlen(RESULTS), "an event")
    stage.wait_idle()
    (event,) = stage.wait_events(1)
    assert event["id"] == job
    assert event["data"]["outcome"] == crash.outcome
    assert event["data"]["attempts"] == crash.attempts
    assert len(stage.api.calls()) == crash.calls
    assert {call.idempotency_key for call in stage.api.calls()} <= {job}
    assert stage.counters().get("crashes", 0) == crash.crashes
    assert stage.counters()["taken"] == stage.counters()["finished"] == 1
    assert len(stage.dead_letters()) == crash.is_dead_letter
    assert stage.leftovers() == []


def test_a_worker_killed_in_the_middle_of_many_jobs_costs_no_more_than_a_call_for_each_it_held(stage: Stage) -> None:
    jobs = {stage.send(f"c-{number}") for number in range(40)}
    point = "answered, but nothing decided"

    worker = stage.start(*HELPER, CRASH_POINT=point, CRASH_AT=17, CONCURRENCY=5, **PATIENT)
    wait_killed(stage, worker)
    held = stage.redis.zcard(stage.keys.leases)
    called = len(stage.api.calls())
    assert 0 < held <= 5
    assert called >= 17
    stage.start(**PATIENT)

    eventually(lambda: time_passes(stage) and stage.redis.xlen(RESULTS) >= 40, "an event for every job")
    stage.wait_idle()
    assert {event["id"] for event in stage.wait_events(40)} == jobs
    assert 40 <= len(stage.api.calls()) <= 40 + held
    assert stage.counters()["crashes"] == held


def test_each_point_that_has_a_name_is_crashed_at() -> None:
    assert {point for crash in CRASHES for point in crash.points} == set(POINTS)


def wait_killed(stage: Stage, worker: WorkerProcess) -> None:
    """Wait until a worker has come to its point; then its leases are over."""
    eventually(lambda: time_passes(stage) and worker.process.poll() is not None, "the end of the worker")
    assert worker.process.returncode == -signal.SIGKILL, worker.log
    past = time.time() * 1000 - 3_600_000
    for ref in stage.redis.zrange(stage.keys.leases, 0, -1):
        stage.redis.zadd(stage.keys.leases, {ref: past}, xx=True)


def time_passes(stage: Stage) -> bool:
    """What waits is due, and Redis was not away: a lapsed lease means a death."""
    stage.redis.hset(stage.keys.maintenance, "awake_since", 1)
    for ref in stage.redis.zrange(stage.keys.delayed, 0, -1):
        stage.redis.zadd(stage.keys.delayed, {ref: 1}, xx=True)
    return True
