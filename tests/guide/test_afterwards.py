"""What is left when jobs are over: dead letters to replay, a stream to read, and numbers to look at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tests.system.stage import RESULTS

if TYPE_CHECKING:
    from tests.system.stage import Stage


def test_a_dead_letter_is_replayed_as_a_new_job(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=403), times=1),))
    stage.worker()
    refused = stage.send("c-42")
    assert stage.outcome_of(refused) == "refused"

    (again,) = stage.lock_worker("replay", "--outcome", "refused").split()

    event = stage.event_of(again)
    assert (event["data"]["outcome"], event["data"]["replay_of"]) == ("locked", refused)
    assert stage.dead_letters() == []


def test_a_consumer_group_reads_each_event_once_and_gets_back_what_it_did_not_acknowledge(stage: Stage) -> None:
    stage.worker()
    jobs = [stage.send(f"c-{number}") for number in range(3)]
    stage.wait_events(3)
    stage.redis.xgroup_create(RESULTS, "my-service", id="0")

    def read(after: str) -> list[tuple[bytes, str]]:
        ((_, entries),) = stage.redis.xreadgroup("my-service", "reader-1", {RESULTS: after})
        return [(entry, json.loads(fields[b"event"])["id"]) for entry, fields in entries]

    first, *others = read(">")
    stage.redis.xack(RESULTS, "my-service", first[0])

    assert sorted(job for _, job in (first, *others)) == sorted(jobs)
    assert read("0") == others


def test_status_says_where_the_queue_stands(stage: Stage) -> None:
    stage.send("c-42")
    stage.send("c-43", countdown=60)

    def status() -> dict[str, int]:
        found = json.loads(stage.lock_worker("status", "--json"))
        return {"ready": found["ready"]["total"], "delayed": found["delayed"]["total"], "results": found["results"]}

    assert status() == {"ready": 2, "delayed": 0, "results": 0}
    stage.worker()
    stage.wait_events(1)
    assert status() == {"ready": 0, "delayed": 1, "results": 1}
