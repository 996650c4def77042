"""A rule that asks for more locks than its limit is held by itself, and no other rule notices."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.system.stage import eventually
from worker.broker.control_moves import Trail, control_command
from worker.broker.move_limits import MAX_CONTROLS
from worker.message.controls import read_controls

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.stage import Stage

LIMIT, WILD, CALM = 40, 400, 60
#: What a pod takes at once.
BATCH = 20


def held(stage: Stage) -> int:
    return int(stage.redis.zcard(stage.keys.held))


def release_all(stage: Stage) -> None:
    trail = Trail("moderation.control", 1000)
    for control in read_controls(stage.redis.hgetall(stage.keys.controls)).controls:
        call = control_command(stage.keys, trail, "remove", "{}", field=control.field, whole_text=True)
        stage.redis.execute_command(*call)


def test_a_runaway_rule_is_held_at_its_limit_and_the_others_go_on_and_a_release_loses_nothing(stage: Stage) -> None:
    workers = [stage.worker("-c", str(BATCH), RULE_LIMIT=f"{LIMIT}/10m") for _ in range(2)]
    wild = {stage.send(f"wild-{number}", fields={"rule_id": "wild"}) for number in range(WILD)}
    calm = {stage.send(f"calm-{number}", fields={"rule_id": f"calm-{number}"}) for number in range(CALM)}

    eventually(lambda: calm <= {event["data"]["job_id"] for event in stage.events()}, "the locks of all other rules")
    eventually(lambda: len(stage.events()) + held(stage) == WILD + CALM, "all jobs of the rule set aside or ended")

    locked = wild & {event["data"]["job_id"] for event in stage.events()}
    assert 0 < len(locked) <= LIMIT
    assert sum(len(worker.lines("rule_held")) for worker in workers) == 1
    event = json.loads(stage.redis.xrange("moderation.control")[0][1][b"event"])
    assert event["type"] == "uk.co.managem.lock-worker.control.rule_held"
    assert event["data"]["selector"] == {"rule": "wild"}

    # Jobs that come now are set aside too, and a worker that starts now obeys.
    late = stage.send("wild-late", fields={"rule_id": "wild"})
    eventually(lambda: held(stage) == WILD - len(locked) + 1, "the late job set aside")
    stage.worker("-c", str(BATCH), RULE_LIMIT=f"{LIMIT}/10m")

    release_all(stage)

    stage.wait_events(WILD + CALM + 1, seconds=60)
    events = stage.events()
    assert {event["data"]["job_id"] for event in events} == wild | calm | {late}
    assert len(events) == WILD + CALM + 1
    assert {event["data"]["outcome"] for event in events} == {"locked"}
    assert held(stage) == 0
    stage.redis.delete("moderation.control", stage.keys.controls)


def test_a_rule_may_have_a_limit_of_its_own(stage: Stage, tmp_path: Path) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text(json.dumps({"strict": "2/1h"}))
    stage.worker("-c", "1", RULE_LIMITS_FILE=str(limits))

    jobs = [stage.send(f"strict-{number}", fields={"rule_id": "strict"}) for number in range(5)]
    others = [stage.send(f"c-{number}", fields={"rule_id": "free"}) for number in range(5)]

    eventually(lambda: held(stage) == 3, "three jobs set aside")
    stage.wait_events(7)
    done = {event["data"]["job_id"] for event in stage.events()}
    assert set(others) <= done
    assert len(done & set(jobs)) == 2
    release_all(stage)
    stage.wait_events(10)
    stage.redis.delete("moderation.control", stage.keys.controls)


def test_jobs_with_an_eta_are_counted_when_it_has_come_and_once(stage: Stage) -> None:
    stage.worker("-c", str(BATCH), RULE_LIMIT="5/10m")
    due = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()

    jobs = {stage.send(f"later-{number}", eta=due, fields={"rule_id": "wild"}) for number in range(60)}

    eventually(lambda: len(stage.events()) + held(stage) == len(jobs) and held(stage) > 0, "the rule's jobs held")
    assert len(stage.events()) <= 5
    release_all(stage)
    stage.wait_events(len(jobs))
    assert {event["data"]["job_id"] for event in stage.events()} == jobs
    history = stage.events()[-1]["data"]["history"]
    assert [step["reason"] for step in history if step["what"] == "delay"] == ["eta", "hold"]
    stage.redis.delete("moderation.control", stage.keys.controls)


def test_a_rule_that_cannot_be_held_for_all_the_holds_that_there_are_goes_on_and_the_log_says_so(stage: Stage) -> None:
    stage.redis.hset(stage.keys.controls, mapping={f"cancel {number:x}": "{}" for number in range(MAX_CONTROLS)})
    worker = stage.worker("-c", str(BATCH), RULE_LIMIT="5/10m")

    for number in range(10):
        stage.send(f"wild-{number}", fields={"rule_id": "wild"})

    stage.wait_events(10)
    assert {line["rule"] for line in worker.lines("rule_not_held")} == {"wild"}
    assert worker.lines("rule_held") == []
    stage.redis.delete(stage.keys.controls)
