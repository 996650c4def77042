"""Workers of one queue whose settings differ: they say so, and none decides for the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cli.terminal import Terminal
from tests.system.stage import DEAD, QUEUE, RESULTS, eventually
from worker.broker.keys import digest
from worker.runtime.registry import Registry

if TYPE_CHECKING:
    from tests.system.stage import Stage, WorkerProcess


def said(worker: WorkerProcess) -> set[tuple[str, object, object]]:
    return {(line["setting"], line["here"], line["there"]) for line in worker.lines("settings_differ")}


def test_settings_that_differ_are_said_by_both_workers_and_by_status(stage: Stage) -> None:
    limits = stage.folder / "limits.json"
    limits.write_text('{"r-7": "200/10m"}', "utf-8")
    first = stage.worker("-n", "one@test", RULE_LIMITS_FILE=str(limits))
    limits.write_text('{"r-7": "100/10m"}', "utf-8")
    second = stage.worker("-n", "two@test", RESULTS_CHANNEL="elsewhere", MAX_DELIVERIES=3, RULE_LIMITS_FILE=str(limits))

    eventually(lambda: len(said(second)) == 3, "what the second one says")
    eventually(lambda: len(said(first)) == 3, "what the first one says", seconds=30)

    (of_limits,) = [line for line in said(first) if line[0] == "RULE_LIMITS_FILE"]
    assert all(str(value).startswith("1 rule, digest ") for value in of_limits[1:])
    assert said(first) == {
        ("RESULTS_CHANNEL", RESULTS, "elsewhere"),
        ("MAX_DELIVERIES", 5, 3),
        of_limits,
    }
    assert {line["workers"][0] for line in first.lines("settings_differ")} == {"two@test"}
    assert {line["level"] for line in first.lines("settings_differ")} == {"warning"}
    terminal = Terminal({"REDIS_URL": stage.redis_url}, stage.folder)
    assert json.loads(terminal.run("status", "--json").stdout)["settings_differ"]["MAX_DELIVERIES"] == [
        {"value": 5, "workers": ["one@test"]},
        {"value": 3, "workers": ["two@test"]},
    ]
    stage.redis.delete("elsewhere", DEAD)


def test_workers_that_agree_say_nothing(stage: Stage) -> None:
    workers = [stage.worker(CONCURRENCY=count) for count in (5, 6)]
    eventually(lambda: stage.redis.hlen(stage.keys.workers) == 2, "two workers that are registered")

    stage.wait_events(0)
    jobs = {stage.send() for _ in range(10)}

    assert {event["data"]["job_id"] for event in stage.wait_events(10)} == jobs
    assert [said(worker) for worker in workers] == [set(), set()]


def test_a_worker_that_remembers_ids_for_a_shorter_time_lets_no_copy_through(stage: Stage) -> None:
    other = Registry("another", "1.0", {"DEDUPLICATE_SECONDS": 600})
    now = f"{stage.redis.time()[0]}000"
    stage.redis.hset(stage.keys.workers, "another", f"{now} {other.digest} {other.entry([QUEUE])}")
    stage.worker(DEDUPLICATE_SECONDS=1)

    job = stage.send()
    stage.event_of(job)

    assert stage.redis.pttl(f"{stage.keys.id_prefix}{digest(job)}") > 60_000


def test_a_worker_that_stops_is_one_of_the_fleet_no_more(stage: Stage) -> None:
    worker = stage.worker()
    eventually(lambda: stage.redis.hlen(stage.keys.workers) == 1, "a worker that is registered")

    assert worker.stop() == 0

    assert stage.redis.exists(stage.keys.workers) == 0
    assert stage.redis.zrange(stage.keys.queues, 0, -1) == [QUEUE.encode()]
