"""``lock-worker cancel``: jobs end as cancelled, wherever they wait, and those that do not match go on."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.cli.in_redis import now_ms, put_record, remember
from tests.cli.steered import actions, control_events
from tests.cli.terminal import Terminal
from tests.system.stage import eventually
from worker.broker.keys import Keys, digest

if TYPE_CHECKING:
    import redis

    from tests.system.stage import Stage

WHY = ("--reason", "the rule ran wild")
KEYS = Keys("moderation.lock")
RULE = ("--rule", "r-7")
MINE = {"rule_id": "r-7"}


def outcomes(stage: Stage, count: int) -> dict[str, str]:
    """The outcome of each job, once there are so many."""
    return {event["data"]["job_id"]: event["data"]["outcome"] for event in stage.wait_events(count)}


def run(stage: Stage, *arguments: str) -> dict[str, Any]:
    """Cancel, and return what programs are told."""
    told: dict[str, Any] = json.loads(stage.lock_worker("cancel", *arguments, *WHY, "--json"))
    return told


def message(job_id: str | None, rule: str = "r-7") -> bytes:
    """A message as a foreign client writes it."""
    headers = {"task": "moderation.lock_conversation", **({} if job_id is None else {"id": job_id})}
    body = json.dumps([[], {"conversation_id": f"c-{job_id}", "rule_id": rule}, {}])
    return json.dumps({"headers": headers, "content-type": "application/json", "body": body}).encode()


def is_remembered(client: redis.Redis, job_id: str) -> bool:
    return bool(client.exists(f"{KEYS.cancelled_prefix}{digest(job_id)}"))


def test_ready_jobs_of_a_rule_end_as_cancelled_and_others_are_locked(stage: Stage) -> None:
    mine = [stage.send(f"c-{number}", fields=MINE) for number in range(250)]
    others = [stage.send(f"d-{number}", priority=number % 10) for number in range(20)]

    told = run(stage, "--rule", "r-7")
    stage.worker()

    assert told["found"] == {"ready": 250, "delayed": 0, "held": 0, "in flight": 0}
    assert outcomes(stage, 270) == {**dict.fromkeys(mine, "cancelled"), **dict.fromkeys(others, "locked")}
    assert len(stage.api.calls()) == 20
    assert actions(stage.redis) == ["cancelled"]
    assert stage.dead_letters() == []


def test_the_event_says_who_cancelled_it_and_why(stage: Stage) -> None:
    job = stage.send("c-1", fields=MINE)
    Terminal({"REDIS_URL": stage.redis_url, "LOCK_WORKER_ACTOR": "ann"}, stage.folder).run("cancel", *RULE, *WHY)
    stage.worker()

    event = stage.event_of(job)

    assert event["type"] == "conversation.lock_skipped"
    assert event["data"]["error"]["type"] == "cancelled"
    assert event["data"]["error"]["detail"] == "Cancelled by ann: the rule ran wild"
    (noted,) = control_events(stage.redis)
    assert (noted["data"]["by"], noted["data"]["selector"]) == ("ann", {"rule": "r-7"})


def test_delayed_and_held_jobs_end_at_once(stage: Stage) -> None:
    stage.worker()
    stage.lock_worker("hold", "--rule", "r-7", *WHY)
    held = stage.send("c-1", fields=MINE)
    delayed = stage.send("c-2", fields={"actor": "bot"}, countdown=3600)
    other = stage.send("c-3", countdown=3600)
    eventually(lambda: (stage.redis.zcard(KEYS.held), stage.redis.zcard(KEYS.delayed)) == (1, 2), "jobs that wait")

    by_rule, by_actor = run(stage, "--rule", "r-7"), run(stage, "--actor", "bot")

    assert (by_rule["found"]["held"], by_actor["found"]["delayed"]) == (1, 1)
    assert outcomes(stage, 2) == {held: "cancelled", delayed: "cancelled"}
    assert stage.api.calls() == []
    assert len(json.loads(stage.lock_worker("holds", "--json"))["holds"]) == 1  # the hold itself stays
    assert run(stage, other)["found"]["delayed"] == 1
    assert stage.outcome_of(other) == "cancelled"


def test_job_ids_are_cancelled_wherever_their_jobs_are(stage: Stage) -> None:
    stage.worker()
    stage.lock_worker("hold", "--rule", "r-7", *WHY)
    held, still_held = (stage.send(f"c-{number}", fields=MINE) for number in range(2))
    delayed = stage.send("c-2", countdown=3600)
    eventually(lambda: (stage.redis.zcard(KEYS.held), stage.redis.zcard(KEYS.delayed)) == (2, 1), "jobs that wait")
    stage.lock_worker("pause", *WHY)
    ready, other = stage.send("c-3"), stage.send("c-4")

    run(stage, held, delayed, ready, "to-come")
    stage.lock_worker("resume")
    stage.send("c-5", task_id="to-come")

    expected = {**dict.fromkeys((held, delayed, ready, "to-come"), "cancelled"), other: "locked"}
    assert outcomes(stage, 5) == expected
    told = {event["data"]["job_id"]: event["data"].get("history", []) for event in stage.wait_events(5)}
    # Each wait is told once: those that were woken to be ended did not wait again.
    assert [[entry["reason"] for entry in told[job]] for job in (held, delayed)] == [["hold"], ["eta"]]
    assert stage.redis.zcard(KEYS.held) == 1
    stage.lock_worker("release", "--rule", "r-7")
    assert stage.outcome_of(still_held) == "locked"
    (noted,) = [event for event in control_events(stage.redis) if event["type"].endswith(".cancelled")]
    assert (noted["data"]["jobs"], noted["data"]["job_ids"]) == (4, [held, delayed, ready, "to-come"])


def test_a_job_that_was_called_before_ends_with_a_dead_letter_that_says_so(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=500, headers={"Retry-After": "200"}), times=1),))
    stage.worker()
    job = stage.send("c-1", fields=MINE)
    eventually(lambda: stage.redis.zcard(KEYS.delayed), "a job that waits for its next call")

    run(stage, "--rule", "r-7")

    event = stage.event_of(job)
    assert (event["type"], event["data"]["outcome"]) == ("conversation.lock_failed", "cancelled")
    assert "may be locked" in event["data"]["error"]["detail"]
    assert len(stage.dead_letters()) == len(stage.api.calls()) == 1


def test_a_call_under_way_is_not_stopped(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Delay(ms=8000)),))
    stage.worker(ATTEMPT_TIMEOUT_SECONDS=20, LEASE_SECONDS=30)
    job = stage.send("c-1", fields=MINE)
    eventually(stage.api.calls, "a call")

    told = run(stage, "--rule", "r-7")

    assert told["found"]["in flight"] == 1
    assert stage.outcome_of(job) == "locked"


def test_with_a_time_it_holds_for_jobs_to_come(stage: Stage) -> None:
    stage.worker()
    said = stage.lock_worker("cancel", "--rule", "r-7", "--for", "1h", *WHY)

    job = stage.send("c-1", fields=MINE)

    assert "So are those that come until 20" in said
    assert stage.outcome_of(job) == "cancelled"
    (cancel,) = json.loads(stage.lock_worker("holds", "--json"))["cancels"]
    assert cancel["selector"] == {"rule": "r-7"}
    assert "--rule r-7" in stage.lock_worker("holds")
    stage.lock_worker("release", "--cancel", "--rule", "r-7")
    assert stage.outcome_of(stage.send("c-2", fields=MINE)) == "locked"
    assert actions(stage.redis) == ["cancelled", "released"]


def test_without_a_time_it_is_not_for_jobs_to_come(stage: Stage) -> None:
    stage.worker()
    run(stage, "--rule", "r-7")

    assert stage.outcome_of(stage.send("c-1", fields=MINE)) == "locked"
    assert json.loads(stage.lock_worker("holds", "--json"))["cancels"] == []


def test_all_jobs_of_all_queues_of_the_fleet_are_cancelled(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.zadd(KEYS.queues, {"second": 1})
    redis_client.lpush("moderation.lock", *(message(f"a-{number}") for number in range(150)), b"no job")
    redis_client.lpush("second\x06\x169", message("b"))
    redis_client.lpush(KEYS.arrived, message("c"))
    for name in ("requeued", "retries", "suspects"):
        redis_client.rpush(getattr(KEYS, name), f"ref-{name}", "vanished")
        redis_client.hset(f"{KEYS.record_prefix}ref-{name}", mapping={"raw": message(name)})

    ended = terminal.run("cancel", "--all", "--yes", *WHY)

    assert ended.stdout.splitlines()[0] == "155 jobs (155 ready) are cancelled."
    assert all(
        is_remembered(redis_client, job) for job in ("a-0", "a-149", "b", "c", "requeued", "retries", "suspects")
    )


def test_all_is_asked_for_and_no_changes_nothing(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.lpush("moderation.lock", message("a"))

    nobody = terminal.run("cancel", "--all", *WHY)
    with terminal.screen("cancel", "--all", *WHY) as screen:
        screen.wait_for("(1 job now)? [y/N]: ")
        screen.type("n\n")
        refused = screen.wait()

    assert (nobody.returncode, refused) == (2, 1)
    assert "--all ends every job: add --yes where nobody can be asked" in nobody.stderr
    assert redis_client.keys() == [b"moderation.lock"]
    with terminal.screen("cancel", "--all", *WHY) as screen:
        screen.wait_for("(1 job now)? [y/N]: ")
        screen.type("y\n")
        screen.wait_for("1 job (1 ready) is cancelled.")
        assert screen.wait() == 0


def test_jobs_without_an_id_end_while_the_cancel_is_in_force_and_are_told(stage: Stage) -> None:
    for _ in range(3):
        stage.push(message(None))

    first = stage.lock_worker("cancel", "--rule", "r-7", *WHY)
    stage.lock_worker("cancel", "--rule", "r-7", "--for", "1h", *WHY)
    stage.worker()

    assert "3 jobs of them came without a job id" in first
    assert [event["data"]["outcome"] for event in stage.wait_events(3)] == ["cancelled"] * 3


def test_another_operators_longer_cancel_stays(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("cancel", "--rule", "r-7", "--for", "1h", *WHY, LOCK_WORKER_ACTOR="ann")

    ended = terminal.run("cancel", "--rule", "r-7", *WHY, LOCK_WORKER_ACTOR="bob")

    assert ended.returncode == 0, ended.stderr
    (cancel,) = json.loads(terminal.run("holds", "--json").stdout)["cancels"]
    assert cancel["by"] == "ann"
    assert [event["data"]["by"] for event in control_events(redis_client)] == ["ann", "bob"]


def test_an_id_is_remembered_for_a_day_at_least(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("cancel", "a", *WHY, JOB_MAX_AGE_SECONDS="60")
    terminal.run("cancel", "b", *WHY, JOB_MAX_AGE_SECONDS="172800")
    terminal.run("cancel", "c", *WHY, "--for", "3d")

    days = [redis_client.ttl(f"{KEYS.cancelled_prefix}{digest(job_id)}") / 86_400 for job_id in "abc"]

    assert [round(each, 2) for each in days] == [1, 2, 3]


def test_a_command_that_is_interrupted_says_what_was_done(terminal: Terminal, redis_client: redis.Redis) -> None:
    for start in range(0, 20_000, 1000):
        redis_client.lpush("moderation.lock", *(message(f"a-{start + number}") for number in range(1000)))
    with terminal.start("cancel", "--rule", "r-7", *WHY, stderr=subprocess.PIPE) as running:
        # Of the third page of a hundred: the command has read how the first one went.
        eventually(lambda: is_remembered(redis_client, "a-19750"), "three pages")
        running.terminate()
        _, said = running.communicate(timeout=60)

    first, account = said.decode().splitlines()
    assert (running.returncode, first) == (130, "lock-worker: interrupted")
    assert "ready) cancelled until then; not all were looked at. Ask once more." in account


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say which jobs: job ids, or options such as --rule, or --all, and only one of the three"),
        (["a", "--rule", "r"], "only one of the three"),
        (["--all", "--rule", "r"], "only one of the three"),
        (["x" * 129], "a job id has 1 to 128 printable characters"),
        (["a", ""], "a job id has 1 to 128 printable characters: '' is none"),
        (["a\x1b"], "'a\\x1b' is none"),
        (["a", "--yes"], "--yes is for --all"),
        (["a", "--for", "x"], "--for x: write a time such as"),
        (["--rule", "r-7", "--rule", "r-8"], "--rule is given 2 times"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str], told: str
) -> None:
    ended = terminal.run("cancel", *arguments, *WHY)

    assert ended.returncode == 2
    assert told in " ".join(ended.stderr.split())
    assert redis_client.keys() == []


def test_ids_of_jobs_that_have_ended_are_counted_so_that_nobody_takes_them_for_stopped(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    remember(redis_client, "a", "ended")
    remember(redis_client, "b", "claimed")

    said = terminal.run("cancel", "a", "b", "c", *WHY).stdout

    assert said.startswith("3 job ids are cancelled, and remembered until ")
    assert " 1 of them has ended already: lock-worker show JOB_ID says how.\n" in said
    assert json.loads(terminal.run("cancel", "a", *WHY, "--json").stdout)["ended"] == 1


def test_a_job_that_waited_is_counted_once_though_it_is_seen_again_when_it_is_ready(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    redis_client.zadd(KEYS.delayed, {put_record(redis_client, "pod-1.1.1.0", message("a")): now_ms() + 600_000})
    redis_client.zadd(KEYS.held, {f"{'0' * 32}:{put_record(redis_client, 'pod-1.2.1.0', message('b'))}": 0})
    redis_client.lpush("moderation.lock", message("c"))

    ended = terminal.run("cancel", "--rule", "r-7", *WHY)

    assert redis_client.llen(KEYS.requeued) == 2
    assert ended.stdout.startswith("3 jobs (1 ready, 1 delayed, 1 held) that match --rule r-7 are cancelled.")
