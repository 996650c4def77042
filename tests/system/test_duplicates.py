"""A job that is sent more than once is one job with one event; two workers share the queue in all tests."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.system.stage import QUEUE, TASK, Stage, eventually
from worker.broker.keys import digest

if TYPE_CHECKING:
    from collections.abc import Iterator


DEDUPLICATE_SECONDS = 900


@pytest.fixture(scope="module")
def stage(module_stage: Stage) -> Stage:
    """One system for all duplicates, with two workers."""
    started = [module_stage.start(CONCURRENCY=20, DEDUPLICATE_SECONDS=DEDUPLICATE_SECONDS) for _ in range(2)]
    for worker in started:
        worker.wait_ready()
    return module_stage


@pytest.fixture(autouse=True)
def _nothing_is_left_or_uncounted(stage: Stage) -> Iterator[None]:
    yield
    stage.api.script = Script()
    stage.wait_idle()
    counters = stage.counters()
    assert counters["taken"] == counters["finished"] + counters.get("deduplicated", 0)
    assert counters["finished"] == len(stage.events())
    assert stage.leftovers() == []


@pytest.fixture
def job() -> str:
    """The id of a job that no other test has sent."""
    return f"job-{uuid.uuid4()}"


def message(job: str | None, conversation: str, **fields: Any) -> bytes:
    headers = {"task": TASK} if job is None else {"task": TASK, "id": job}
    body = json.dumps([[], {"conversation_id": conversation, **fields}, {}])
    return json.dumps({"body": body, "headers": headers, "properties": {"body_encoding": "utf-8"}}).encode()


def events_of(stage: Stage, job: str) -> list[dict[str, Any]]:
    """The events of a job, now that the workers have settled everything: the first has its id, and no other has."""
    stage.wait_idle()
    found = [event for event in stage.events() if event["data"]["job_id"] == job]
    ids = [event["id"] for event in found]
    assert ids[:1] == [job][: len(ids)]
    assert len(set(ids)) == len(ids)
    return found


def outcomes(stage: Stage, job: str) -> list[str]:
    """How a job ended, each time that it did."""
    return [event["data"]["outcome"] for event in events_of(stage, job)]


def calls_for(stage: Stage, conversation: str) -> int:
    return sum(call.conversation_id == conversation for call in stage.api.calls())


def duplicates_logged(stage: Stage, job: str) -> list[tuple[str, str | None]]:
    """What the workers logged of the duplicates of a job that they dropped: the level, and how the first one ended."""
    lines = [line for worker in stage.workers for line in worker.lines("job_duplicate_dropped") if line["job"] == job]
    return [(line["level"], line.get("first_outcome")) for line in lines]


def dropped(stage: Stage) -> int:
    return stage.counters().get("deduplicated", 0)


def test_a_duplicate_that_comes_after_the_event_is_dropped_without_a_call_and_counted(stage: Stage, job: str) -> None:
    before = dropped(stage)
    stage.push(message(job, job))
    stage.event_of(job)

    stage.push(message(job, job))
    stage.push(message(job, job, reason="a duplicate may differ in all but id and conversation"))

    assert outcomes(stage, job) == ["locked"]
    assert calls_for(stage, job) == 1
    assert dropped(stage) - before == 2
    assert (
        eventually(lambda: len(told := duplicates_logged(stage, job)) == 2 and told, "two lines")
        == [("info", None)] * 2
    )


def test_a_duplicate_of_a_stock_producer_is_a_duplicate_too(stage: Stage, job: str) -> None:
    stage.send(job, task_id=job)
    stage.event_of(job)

    stage.send(job, task_id=job)

    assert outcomes(stage, job) == ["locked"]
    assert calls_for(stage, job) == 1


def test_duplicates_that_are_in_flight_at_once_give_one_event(stage: Stage, job: str) -> None:
    stage.api.script = Script(rules=(Rule(id=job, then=Delay(ms=200)),))

    stage.redis.lpush(QUEUE, *[message(job, job)] * 10)

    assert outcomes(stage, job) == ["locked"]
    assert 1 <= calls_for(stage, job) <= 10


def test_a_duplicate_that_comes_when_the_id_is_forgotten_is_a_new_job(stage: Stage, job: str) -> None:
    stage.push(message(job, job))
    stage.event_of(job)
    key = stage.keys.id_prefix + digest(job)
    assert 0 < stage.redis.pttl(key) <= DEDUPLICATE_SECONDS * 1000
    stage.redis.pexpire(key, 0)

    stage.push(message(job, job))

    stage.wait_idle()
    again = [(event["id"], event["data"]["outcome"]) for event in stage.events() if event["data"]["job_id"] == job]
    assert again == [(job, "locked")] * 2
    assert calls_for(stage, job) == 2


def test_a_duplicate_of_a_job_that_the_api_refused_is_dropped_as_well(stage: Stage, job: str) -> None:
    stage.api.script = Script(rules=(Rule(id=job, then=Respond(status=404)),))
    stage.push(message(job, job))
    stage.event_of(job)

    stage.push(message(job, job))

    assert outcomes(stage, job) == ["refused"]
    assert eventually(lambda: duplicates_logged(stage, job), "the line") == [("warning", "refused")]
    assert calls_for(stage, job) == 1
    assert [event["id"] for event, _ in stage.dead_letters()].count(job) == 1


def test_a_duplicate_of_a_message_that_was_no_job_is_dropped_as_well(stage: Stage, job: str) -> None:
    stage.push(message(job, job, dryrun=True))
    stage.event_of(job)

    stage.push(message(job, job, dryrun=True))
    stage.push(message(job, job))

    assert outcomes(stage, job) == ["rejected"]
    assert calls_for(stage, job) == 0
    assert [event["id"] for event, _ in stage.dead_letters()].count(job) == 1


def test_a_message_that_is_no_job_is_a_duplicate_if_its_id_and_conversation_are(stage: Stage, job: str) -> None:
    stage.push(message(job, job))
    stage.event_of(job)

    stage.push(message(job, job, dryrun=True))

    assert outcomes(stage, job) == ["locked"]


def test_a_duplicate_that_overtakes_a_job_put_aside_takes_its_place(stage: Stage, job: str) -> None:
    failure = Respond(status=500, headers={"Retry-After": "30"})
    stage.api.script = Script(rules=(Rule(id=job, first_calls=1, then=failure),))
    stage.push(message(job, job))
    (ref,) = eventually(lambda: stage.redis.zrange(stage.keys.delayed, 0, -1), "a job put aside")

    stage.push(message(job, job))
    stage.event_of(job)
    stage.redis.zadd(stage.keys.delayed, {ref: 0})  # its wait is over

    assert outcomes(stage, job) == ["locked"]
    assert calls_for(stage, job) == 2


def test_the_id_of_a_job_is_rejected_for_another_conversation_without_a_call(stage: Stage, job: str) -> None:
    stage.push(message(job, job))
    stage.event_of(job)

    stage.push(message(job, f"{job}-other"))

    assert outcomes(stage, job) == ["locked", "rejected"]
    (event,) = [event for event in stage.events() if event["subject"] == f"{job}-other"]
    assert (event["data"]["error"]["type"], event["data"]["attempts"]) == ("invalid_job", 0)
    assert calls_for(stage, f"{job}-other") == 0
    assert [dead for dead, _ in stage.dead_letters() if dead["data"]["job_id"] == job] == [event]


def test_the_id_of_a_job_in_flight_is_rejected_for_another_conversation(stage: Stage, job: str) -> None:
    stage.api.script = Script(rules=(Rule(id=job, then=Delay(ms=500)),))
    stage.push(message(job, job))
    eventually(lambda: calls_for(stage, job), "the call")

    stage.push(message(job, f"{job}-other"))

    stage.wait_idle()
    rejected, locked = [event for event in stage.events() if event["data"]["job_id"] == job]
    assert (rejected["data"]["outcome"], locked["data"]["outcome"]) == ("rejected", "locked")
    assert rejected["id"] != locked["id"] == job
    assert calls_for(stage, f"{job}-other") == 0


def test_a_job_whose_id_came_to_stand_for_another_conversation_during_its_call_still_tells_that_it_is_locked(
    stage: Stage, job: str
) -> None:
    # given a call that takes longer than its claim of the id lasts, and another job that uses the id meanwhile
    stage.api.script = Script(rules=(Rule(id=job, then=Delay(ms=1000)),))
    stage.push(message(job, job))
    eventually(lambda: calls_for(stage, job), "the call")
    stage.redis.delete(stage.keys.id_prefix + digest(job))
    stage.push(message(job, f"{job}-other"))
    assert stage.event_of(job)["subject"] == f"{job}-other"

    # when the call is answered, and both are sent once more
    assert outcomes(stage, job) == ["locked", "locked"]
    stage.push(message(job, job))
    stage.push(message(job, f"{job}-other"))

    # then each of them was one job with one event
    assert [event["subject"] for event in events_of(stage, job)] == [f"{job}-other", job]
    assert calls_for(stage, job) == calls_for(stage, f"{job}-other") == 1


@pytest.mark.parametrize("fields", [{}, {"dryrun": True}], ids=["a job", "no job"])
def test_an_id_used_for_another_conversation_still_stands_for_the_first_one(
    fields: dict[str, Any], stage: Stage, job: str
) -> None:
    stage.push(message(job, job))
    stage.event_of(job)
    stage.push(message(job, f"{job}-other", **fields))
    eventually(lambda: len(outcomes(stage, job)) == 2, "the rejection")

    stage.push(message(job, job))
    stage.push(message(job, f"{job}-other", **fields))

    assert outcomes(stage, job) == ["locked", "rejected"]
    assert (calls_for(stage, job), calls_for(stage, f"{job}-other")) == (1, 0)


def test_a_job_that_was_tried_as_a_dry_run_before_is_called_and_has_its_event(stage: Stage, job: str) -> None:
    stage.push(message(job, job, dry_run=True))
    stage.event_of(job)

    stage.push(message(job, job))

    assert outcomes(stage, job) == ["would_lock", "locked"]
    assert calls_for(stage, job) == 1


def test_a_dry_run_after_the_job_itself_has_its_event_too(stage: Stage, job: str) -> None:
    stage.push(message(job, job))
    stage.event_of(job)

    stage.push(message(job, job, dry_run=True))

    assert outcomes(stage, job) == ["locked", "would_lock"]
    assert calls_for(stage, job) == 1


@pytest.mark.parametrize("is_dry_run_first", [True, False], ids=["dry run first", "job first"])
def test_duplicates_of_a_dry_run_and_of_the_job_are_each_duplicates_of_their_own(
    stage: Stage, job: str, *, is_dry_run_first: bool
) -> None:
    before = dropped(stage)
    for is_dry_run in (is_dry_run_first, not is_dry_run_first) * 2:
        stage.push(message(job, job, dry_run=is_dry_run))
        stage.wait_idle()

    first, second = events_of(stage, job)
    assert [first["data"]["outcome"] == "would_lock", second["data"]["outcome"] == "would_lock"] == [
        is_dry_run_first, not is_dry_run_first,
    ]  # fmt: skip
    assert calls_for(stage, job) == 1
    assert dropped(stage) - before == 2
    told = eventually(lambda: len(found := duplicates_logged(stage, job)) == 2 and found, "two lines")
    assert sorted(told) == [("info", None), ("warning", "would_lock")]


def test_a_dry_run_beside_the_job_in_flight_takes_nothing_from_it(stage: Stage, job: str) -> None:
    stage.api.script = Script(rules=(Rule(id=job, then=Delay(ms=300)),))
    stage.push(message(job, job))
    eventually(lambda: calls_for(stage, job), "the call")

    stage.redis.lpush(QUEUE, *[message(job, job, dry_run=True)] * 5)

    assert outcomes(stage, job) == ["would_lock", "locked"]
    assert calls_for(stage, job) == 1


@pytest.mark.parametrize("is_dry_run", [True, False], ids=["dry run first", "job first"])
def test_an_id_stands_for_one_conversation_also_between_a_dry_run_and_a_job(
    stage: Stage, job: str, *, is_dry_run: bool
) -> None:
    stage.push(message(job, job, dry_run=is_dry_run))
    stage.event_of(job)

    stage.push(message(job, f"{job}-other", dry_run=not is_dry_run))

    assert outcomes(stage, job) == ["would_lock" if is_dry_run else "locked", "rejected"]
    assert calls_for(stage, f"{job}-other") == 0


def test_a_dry_run_that_was_rejected_stands_in_no_jobs_way(stage: Stage, job: str) -> None:
    stage.push(message(job, job, dry_run=True, rule="r-7"))
    stage.event_of(job)

    stage.push(message(job, job))

    assert outcomes(stage, job) == ["rejected", "locked"]


def test_a_message_without_a_conversation_is_a_duplicate_of_nothing_and_stands_in_no_jobs_way(
    stage: Stage, job: str
) -> None:
    for _ in range(3):
        stage.push(message(job, ""))
        stage.wait_idle()

    stage.push(message(job, job))
    stage.wait_idle()
    stage.push(message(job, job, dry_run=True))
    stage.wait_idle()
    stage.push(message(job, ""))

    assert outcomes(stage, job) == [*["rejected"] * 3, "locked", "would_lock", "rejected"]


def test_messages_without_an_id_are_never_duplicates_however_alike(stage: Stage, job: str) -> None:
    stage.redis.lpush(QUEUE, *[message(None, job)] * 3)
    stage.wait_idle()
    stage.push(message(None, job))
    stage.wait_idle()

    ids = {event["id"] for event in stage.events() if event.get("subject") == job}
    assert len(ids) == 4
    assert calls_for(stage, job) == 4
    assert not any(stage.redis.exists(stage.keys.id_prefix + digest(each)) for each in ids)


def test_two_workers_give_200_jobs_that_were_sent_twice_200_events(stage: Stage, job: str) -> None:
    stage.api.script = Script(rules=(Rule(ids=f"{job}-*", then=Delay(ms=20)),))
    jobs = [f"{job}-{number}" for number in range(200)]
    before, dropped_before = len(stage.events()), dropped(stage)

    # A duplicate beside its job, and a duplicate 100 jobs behind it.
    near = [message(each, each) for each in jobs[:100] for _ in range(2)]
    far = [message(each, each) for each in jobs[100:] * 2]
    stage.redis.lpush(QUEUE, *near, *far)

    eventually(lambda: len(stage.events()) - before >= 200, "200 events")
    stage.wait_idle()
    events = stage.events()[before:]
    assert sorted(event["id"] for event in events) == sorted(jobs)
    assert {event["data"]["outcome"] for event in events} == {"locked"}
    assert dropped(stage) - dropped_before == 200
    assert all(worker.lines("job_finished") for worker in stage.workers)
