"""Each row of ``docs/celery-tools.md`` about Celery's own tools, tried on a running worker.

A check does what its row is about, asserts what the row tells, and returns the answer, in which each sentence that the
row quotes must stand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TimeoutError as NoResultInTimeError

from sandbox.faults import Delay, Respond
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.celery_tools_page import quoted, rows
from tests.system.stage import DEAD, QUEUE, RESULTS, TASK, TOKEN, Stage, eventually, monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.server_binaries import ServerBinary

PASSWORD = "a-redis-password"
NAME = "lock-1@test"
QUIET = "quiet@test"
SLOTS = 5
PRIVATE = "what a person wrote"
FIELDS = {
    "rule_id": "r-7", "policies": ["p-1"], "actor": "a-service", "correlation_id": "k-1", "dry_run": False,
    "requested_at": "2026-11-22T15:04:05Z", "reason": PRIVATE, "metadata": {"note": PRIVATE},
}  # fmt: skip
SHOWN = {
    "conversation_id": "slow-1", "rule_id": "r-7", "policies": ["p-1"], "actor": "a-service",
    "correlation_id": "k-1", "requested_at": "2026-11-22T15:04:05Z",
}  # fmt: skip

SCRIPT = Script(
    rules=(
        Rule(ids="missing*", then=Respond(status=404)),
        Rule(ids="broken*", then=Respond(status=500)),
        Rule(ids="later*", first_calls=1, then=Respond(status=500, headers={"Retry-After": "2"})),
        Rule(ids="slow*", then=Delay(ms=1500)),
    )
)
CHECKS: dict[str, dict[str, Callable[[Stage], str]]] = {
    title: {} for title in ("`celery inspect`", "`celery control`", "Other commands", "Task events")
}


def check(title: str, *about: str) -> Callable[[Callable[[Stage], str]], Callable[[Stage], str]]:
    def add(function: Callable[[Stage], str]) -> Callable[[Stage], str]:
        for one in about:
            CHECKS[title][one] = function
        return function

    return add


@pytest.fixture(scope="module")
def running(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with (
        RedisServer(server_binary, {"requirepass": PASSWORD}) as server,
        Stage(server.url, tmp_path_factory.mktemp("tools")) as stage,
    ):
        stage.api.script = SCRIPT
        start(stage)
        yield stage


@pytest.fixture
def tools(running: Stage) -> Stage:
    if running.workers[-1].process.poll() is not None:  # the row before told it to end
        start(running)
    running.wait_idle()
    running.redis.delete(RESULTS, DEAD)
    running.api.reset()
    return running


@pytest.fixture(scope="module")
def quiet(running: Stage) -> Stage:
    running.worker("--without-heartbeat", "-n", QUIET)
    return running


def start(stage: Stage) -> None:
    stage.worker("-E", "-n", NAME, CONCURRENCY=SLOTS, ATTEMPT_TIMEOUT_SECONDS=4, MAX_ATTEMPTS=2)


def ask(stage: Stage, command: str, **arguments: Any) -> Any:
    """What the worker answers to a command of the remote control."""
    answers: Any = stage.producer.control.broadcast(
        command, arguments, destination=[NAME], reply=True, timeout=10, limit=1
    )
    return answers[0][NAME]


def refusal(stage: Stage, command: str, **arguments: Any) -> str:
    known = len(stage.workers[-1].lines("control_refused"))
    (sentence,) = ask(stage, command, **arguments).values()
    logged = eventually(lambda: stage.workers[-1].lines("control_refused")[known:], "the line in the log")
    assert [(line["command"], line["reason"]) for line in logged] == [(command, sentence)]
    return str(sentence)


def celery(stage: Stage, *words: str, app: tuple[str, ...] = ("-A", "worker")) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "celery", *app, *words], env={**os.environ, **stage.environment()},
        capture_output=True, timeout=60, text=True, check=False,
    )  # fmt: skip
    told = ended.stdout + ended.stderr
    assert "Traceback" not in told, told
    assert TOKEN not in told
    assert PASSWORD not in told
    return told


def forget_delayed(stage: Stage) -> None:
    stage.redis.delete(stage.keys.delayed, *stage.redis.scan_iter(f"{stage.keys.record_prefix}*"))


def slow_job(stage: Stage) -> str:
    job = stage.send("slow-1", fields=FIELDS)
    eventually(stage.api.calls, "the call")
    return job


# --- celery inspect ----------------------------------------------------------------------------------------------


@check("`celery inspect`", "active")
def active(stage: Stage) -> str:
    job = slow_job(stage)
    (shown,) = ask(stage, "active")
    assert (shown["id"], shown["name"], shown["hostname"], shown["kwargs"]) == (job, TASK, NAME, SHOWN)
    assert shown["delivery_info"]["routing_key"] == QUEUE
    assert shown["delivery_info"]["redelivered"] is False
    assert shown["time_start"] > 0
    assert isinstance(shown["worker_pid"], int)
    return PRIVATE * (PRIVATE in json.dumps(shown))


@check("`celery inspect`", "reserved", "scheduled")
def nothing_is_held_in_memory(stage: Stage) -> str:
    for _ in range(2 * SLOTS):
        stage.send("slow-1")
    stage.send("c-1", countdown=600)
    eventually(lambda: len(ask(stage, "active")) == SLOTS, "a worker without a free slot")
    eventually(lambda: stage.redis.zcard(stage.keys.delayed), "the delayed job")
    assert (ask(stage, "reserved"), ask(stage, "scheduled")) == ([], [])
    assert f"{NAME}: OK" in celery(stage, "inspect", "--timeout", "10", "--destination", NAME, "scheduled")
    stage.wait_events(2 * SLOTS)
    forget_delayed(stage)
    return ""


@check("`celery inspect`", "revoked")
def revoked(stage: Stage) -> str:
    ask(stage, "revoke", task_id="revoked-1")
    assert "revoked-1" in ask(stage, "revoked")
    return ""


@check("`celery inspect`", "query_task ID")
def query_task(stage: Stage) -> str:
    waits, runs = stage.send("c-1", countdown=600), slow_job(stage)
    found = ask(stage, "query_task", ids=[waits, runs, "unknown"])
    assert found.keys() == {runs}
    assert (found[runs][0], found[runs][1]["kwargs"]) == ("active", SHOWN)
    stage.event_of(runs)
    forget_delayed(stage)
    return ""


@check("`celery inspect`", "stats")
def stats(stage: Stage) -> str:
    before = ask(stage, "stats")
    for conversation in ("c-1", "later-1", ""):
        stage.event_of(stage.send(conversation))
    after = eventually(
        lambda: (found := ask(stage, "stats"))["total"][TASK] >= before["total"].get(TASK, 0) + 3 and found, "the count"
    )
    assert after["total"] == {TASK: before["total"].get(TASK, 0) + 3}
    assert (after["pool"]["max-concurrency"], after["prefetch_count"]) == (SLOTS, SLOTS)
    assert 10_000 < after["rusage"]["maxrss"] < 1_000_000
    assert (after["broker"]["hostname"], after["broker"]["virtual_host"]) == ("127.0.0.1", "0")
    ask(stage, "pool_grow", n=2)
    grown = ask(stage, "stats")
    assert (grown["pool"]["max-concurrency"], grown["prefetch_count"]) == (SLOTS + 2, SLOTS + 2)
    ask(stage, "pool_shrink", n=2)
    return ""


@check("`celery inspect`", "active_queues")
def active_queues(stage: Stage) -> str:
    assert [queue["name"] for queue in ask(stage, "active_queues")] == [QUEUE]
    return ""


@check("`celery inspect`", "registered")
def registered(stage: Stage) -> str:
    assert ask(stage, "registered") == [TASK]
    return ""


@check("`celery inspect`", "conf", "report")
def configuration(stage: Stage) -> str:
    conf = ask(stage, "conf")
    assert (conf["worker_concurrency"], conf["task_default_queue"]) == (SLOTS, QUEUE)
    told = json.dumps([conf, ask(stage, "report")])
    assert "software -> celery:5.7.0" in told
    for hidden in (TOKEN, PASSWORD, "LEASE_SECONDS", "bound method"):
        assert hidden not in told
    return told


@check("`celery inspect`", "ping")
def ping(stage: Stage) -> str:
    assert ask(stage, "ping") == {"ok": "pong"}
    return ""


@check("`celery inspect`", "clock")
def clock(stage: Stage) -> str:
    with monitor(stage.producer) as heard:
        assert ask(stage, "clock")["clock"] >= heard[0]["clock"]
    return ""


@check("`celery inspect`", "hello")
def hello(stage: Stage) -> str:
    ask(stage, "revoke", task_id="revoked-3")
    told = ask(stage, "hello", from_node="another@test")
    assert told.keys() == {"revoked", "clock"}
    assert "revoked-3" in told["revoked"]
    return ""


@check("`celery inspect`", "memsample")
def memsample(stage: Stage) -> str:
    return refusal(stage, "memsample")


@check("`celery inspect`", "memdump")
def memdump(stage: Stage) -> str:
    return refusal(stage, "memdump")


@check("`celery inspect`", "objgraph")
def objgraph(stage: Stage) -> str:
    return refusal(stage, "objgraph")


# --- celery control ----------------------------------------------------------------------------------------------


@check("`celery control`", "add_consumer QUEUE")
def add_consumer(stage: Stage) -> str:
    assert "ok" in ask(stage, "add_consumer", queue="another")
    assert stage.outcome_of(stage.send("c-1", queue="another")) == "locked"
    ask(stage, "cancel_consumer", queue="another")
    return refusal(stage, "add_consumer", queue=RESULTS)


@check("`celery control`", "cancel_consumer QUEUE")
def cancel_consumer(stage: Stage) -> str:
    ask(stage, "add_consumer", queue="brief")
    running = stage.send("slow-1", queue="brief")
    eventually(stage.api.calls, "the call")
    assert ask(stage, "cancel_consumer", queue="brief") == {"ok": "no longer consuming from brief"}
    stage.send("c-1", queue="brief")
    assert stage.outcome_of(running) == "locked"
    assert stage.redis.llen("brief") == 1
    stage.redis.delete("brief")
    return refusal(stage, "cancel_consumer", queue="elsewhere")


@check("`celery control`", "pool_grow N", "pool_shrink N")
def pool(stage: Stage) -> str:
    jobs = [stage.send(f"slow-{number}") for number in range(SLOTS)]
    eventually(lambda: len(stage.api.calls()) == SLOTS, "the calls")
    shrunk = ask(stage, "pool_shrink", n=1000)["ok"]
    assert "up to 1 jobs at once now" in shrunk
    assert [stage.outcome_of(job) for job in jobs] == ["locked"] * SLOTS
    return str(ask(stage, "pool_grow", n=SLOTS - 1)["ok"])


@check("`celery control`", "enable_events", "disable_events")
def events_on_and_off(stage: Stage) -> str:
    def heard_of(heard: list[dict[str, Any]]) -> set[str]:
        stage.outcome_of(stage.send("c-1"))
        known = len(heard)
        eventually(lambda: "worker-heartbeat" in [event["type"] for event in heard[known:]], "a heartbeat")
        return {event["type"].partition("-")[0] for event in heard[-5:]}

    with monitor(stage.producer) as heard:
        assert ask(stage, "disable_events") == {"ok": "task events disabled"}
        heard.clear()
        assert heard_of(heard) == {"worker"}
        assert ask(stage, "disable_events") == {"ok": "task events already disabled"}
        assert ask(stage, "enable_events") == {"ok": "task events enabled"}
        assert heard_of(heard) == {"worker", "task"}
    return ""


@check("`celery control`", "heartbeat")
def heartbeat(stage: Stage) -> str:
    with monitor(stage.producer) as heard:
        ask(stage, "heartbeat")
        eventually(lambda: [event for event in list(heard) if event.get("freq") == 5], "the heartbeat asked for")
    return ""


@check("`celery control`", "revoke ID")
def revoke(stage: Stage) -> str:
    runs = slow_job(stage)
    for job in ("waits", runs):
        ask(stage, "revoke", task_id=job)
    stage.send("c-1", task_id="waits")
    assert stage.outcome_of("waits") == "revoked"
    assert stage.outcome_of(runs) == "locked"
    return ""


@check("`celery control`", "revoke ID --terminate")
def revoke_and_terminate(stage: Stage) -> str:
    job = slow_job(stage)
    ask(stage, "revoke", task_id=job, terminate=True)
    data = stage.event_of(job)["data"]
    assert data["outcome"] == "revoked"
    assert "the conversation may be locked" in data["error"]["detail"]
    return ""


@check("`celery control`", "terminate SIGNAL ID")
def terminate(stage: Stage) -> str:
    job = slow_job(stage)
    ask(stage, "terminate", task_id=job, signal="KILL")
    assert stage.outcome_of(job) == "revoked"
    assert stage.workers[-1].process.poll() is None
    return refusal(stage, "terminate", task_id=job, signal="WRONG")


@check("`celery control`", "shutdown")
def shutdown(stage: Stage) -> str:
    job = slow_job(stage)
    told = celery(stage, "control", "--timeout", "10", "--destination", NAME, "shutdown")
    assert stage.workers[-1].process.wait(20) == 0
    assert stage.outcome_of(job) == "locked"
    return told


@check("`celery control`", "rate_limit")
def rate_limit(stage: Stage) -> str:
    return refusal(stage, "rate_limit", task_name=TASK, rate_limit="1/s")


@check("`celery control`", "time_limit")
def time_limit(stage: Stage) -> str:
    return refusal(stage, "time_limit", task_name=TASK, hard=1, soft=1)


@check("`celery control`", "autoscale")
def autoscale(stage: Stage) -> str:
    return refusal(stage, "autoscale", max=5, min=1)


@check("`celery control`", "pool_restart")
def pool_restart(stage: Stage) -> str:
    return refusal(stage, "pool_restart")


@check("`celery control`", "revoke_by_stamped_headers")
def revoke_by_stamped_headers(stage: Stage) -> str:
    return refusal(stage, "revoke_by_stamped_headers", headers={"a": "b"})


@check("`celery control`", "election")
def election(stage: Stage) -> str:
    return refusal(stage, "election", id="e-1", topic="t", action=None)


@check("`celery control`", "a command without an argument that it needs")
def missing_argument(stage: Stage) -> str:
    return refusal(stage, "terminate", task_id="j-1")


@check("`celery control`", "a command that there is not")
def unknown_command(stage: Stage) -> str:
    return refusal(stage, "unlock")


# --- other commands, and results ---------------------------------------------------------------------------------


@check("Other commands", "celery status")
def status(stage: Stage) -> str:
    assert f"{NAME}: OK" in celery(
        stage, "-b", stage.redis_url, "status", "--timeout", "10", "--destination", NAME, app=()
    )
    return ""


@check("Other commands", "celery report")
def report(stage: Stage) -> str:
    assert "software -> celery:5.7.0" in celery(stage, "report")
    return ""


@check("Other commands", "celery list bindings")
def list_bindings(stage: Stage) -> str:
    assert QUEUE in celery(stage, "list", "bindings")
    return ""


@check("Other commands", "celery call")
def call(stage: Stage) -> str:
    for words, outcome in (((TASK, '--args=["c-1"]'), "locked"), ((TASK,), "rejected"), (("other.task",), "rejected")):
        job = celery(stage, "call", *words).split()[-1]
        assert stage.outcome_of(job) == outcome
    return ""


@check("Other commands", "celery result ID")
def result(stage: Stage) -> str:
    return celery(stage, "result", "j-1")


@check("Other commands", "AsyncResult of the worker's app")
def result_of_the_workers_app(stage: Stage) -> str:
    questions = "for ask in (lambda: r.state, r.get, r.ready):\n try: ask()\n except Exception as error: print(error)"
    told = subprocess.run(
        [sys.executable, "-c", f"from worker.celery import app\nr = app.AsyncResult('j-1')\n{questions}"],
        env={**os.environ, **stage.environment()}, capture_output=True, timeout=60, text=True, check=True,
    ).stdout  # fmt: skip
    assert told.count("lock-worker keeps no Celery results") == 3
    return told


@check("Other commands", "AsyncResult of a producer's app")
def result_of_a_producers_app(stage: Stage) -> str:
    with Celery("asks", broker=stage.redis_url, backend=stage.redis_url, set_as_current=False) as app:
        sent = app.send_task(TASK, kwargs={"conversation_id": "c-1"}, queue=QUEUE)
        assert stage.outcome_of(sent.id) == "locked"
        assert sent.state == "PENDING"
        with pytest.raises(NoResultInTimeError):
            sent.get(timeout=0.1)
        sent.forget()
    return ""


@check("Other commands", "celery purge")
def purge(stage: Stage) -> str:
    return celery(stage, "purge", "-f", "-Q", "elsewhere")


@check("Other commands", "celery amqp")
def amqp(stage: Stage) -> str:
    told = [celery(stage, "amqp", word, "elsewhere") for word in ("queue.purge", "queue.delete", "basic.get")]
    assert len({"every job ends in one result event" in one for one in told}) == 1
    return told[0]


@check("Other commands", "celery -b REDIS_URL purge -Q QUEUE")
def purge_without_the_app(stage: Stage) -> str:
    page = (Path(__file__).parents[2] / "docs" / "celery-tools.md").read_text("utf-8")
    (user,) = re.findall(r"`ACL SETUSER (monitor on .*)`", page)
    stage.redis.execute_command("ACL", "SETUSER", *user.split())
    as_monitor = ("-b", stage.redis_url.replace(f":{PASSWORD}@", "monitor:a-long-secret@"))
    stage.send(queue="elsewhere")

    assert f"{NAME}: OK" in celery(stage, *as_monitor, "status", "--timeout", "10", "--destination", NAME, app=())
    told = celery(stage, *as_monitor, "purge", "-f", "-Q", "elsewhere", app=())
    with redis.Redis.from_url(as_monitor[1]) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.lrange("elsewhere", 0, -1)
    assert stage.redis.llen("elsewhere") == 1
    assert "Purged 1 message" in celery(stage, "-b", stage.redis_url, "purge", "-f", "-Q", "elsewhere", app=())
    assert stage.redis.llen("elsewhere") == 0
    return told


@check("Other commands", "celery events --dump")
def dump(stage: Stage) -> str:
    program = [sys.executable, "-u", "-m", "celery", "-b", stage.redis_url, "events", "--dump"]
    log = stage.folder / "dump.log"
    with log.open("wb") as out, subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            eventually(
                lambda: "worker-heartbeat" in log.read_text("utf-8") or "heartbeat" in log.read_text("utf-8"), "it"
            )
            job = stage.send("c-1", fields=FIELDS)
            eventually(lambda: f"task succeeded: {TASK}({job})" in log.read_text("utf-8"), "the end of the job")
        finally:
            process.terminate()
    assert PRIVATE not in log.read_text("utf-8")
    return ""


# --- task events -------------------------------------------------------------------------------------------------

BEGUN = ["task-received", "task-started"]


def story(stage: Stage, job: str, heard: list[dict[str, Any]]) -> list[str]:
    """The events of a job up to a job that was sent later and is over."""
    last = stage.send("c-last")
    eventually(lambda: [e for e in list(heard) if e.get("uuid") == last and e["type"] == "task-succeeded"], "the last")
    return [event["type"] for event in heard if event.get("uuid") == job]


def told_of(stage: Stage, conversation: str, outcome: str | None, **options: Any) -> tuple[list[str], str]:
    """The events of a job that ends like this (None: that does not end), and the last one."""
    with monitor(stage.producer) as heard:
        job = stage.send(conversation, **options)
        if outcome is not None:
            assert stage.outcome_of(job) == outcome
        types = story(stage, job, heard)
        return types, json.dumps([event for event in heard if event.get("uuid") == job][-1:])


@check("Task events", "locked")
def locked(stage: Stage) -> str:
    types, last = told_of(stage, "c-1", "locked", fields=FIELDS)
    assert types == [*BEGUN, "task-succeeded"]
    assert '"result": "locked"' in last
    return last


@check("Task events", "would_lock")
def would_lock(stage: Stage) -> str:
    types, last = told_of(stage, "c-1", "would_lock", fields={"dry_run": True})
    assert types == [*BEGUN, "task-succeeded"]
    assert '"result": "would_lock"' in last
    return last


@check("Task events", "expired")
def expired(stage: Stage) -> str:
    types, last = told_of(stage, "c-1", "expired", expires=-1)
    assert types == [*BEGUN, "task-succeeded"]
    assert '"result": "expired"' in last
    return last


@check("Task events", "refused")
def refused(stage: Stage) -> str:
    types, last = told_of(stage, "missing-1", "refused")
    assert types == [*BEGUN, "task-failed"]
    assert "LockFailedError('refused: " in last
    return last


@check("Task events", "exhausted")
def exhausted(stage: Stage) -> str:
    types, last = told_of(stage, "broken-1", "exhausted")
    assert types == [*BEGUN, "task-failed"]
    assert "LockFailedError('exhausted: " in last
    return last


@check("Task events", "a call failed, and the job waits in Redis for the next")
def retried(stage: Stage) -> str:
    with monitor(stage.producer) as heard:
        job = stage.send("later-1")
        assert stage.outcome_of(job) == "locked"
        types = story(stage, job, heard)
    assert types == [*BEGUN, "task-retried", *BEGUN, "task-succeeded"]
    told = {event["type"]: event for event in heard if event.get("uuid") == job}
    assert told["task-received"]["retries"] == 1
    assert "server_error" in told["task-retried"]["exception"]
    return ""


@check("Task events", "revoked before a call")
def revoked_before_a_call(stage: Stage) -> str:
    ask(stage, "revoke", task_id="revoked-2")
    types, last = told_of(stage, "c-1", "revoked", task_id="revoked-2")
    assert types == ["task-received", "task-revoked"]
    return last


@check("Task events", "terminated")
def terminated(stage: Stage) -> str:
    with monitor(stage.producer) as heard:
        job = slow_job(stage)
        ask(stage, "terminate", task_id=job, signal="TERM")
        assert stage.outcome_of(job) == "revoked"
        types = story(stage, job, heard)
    assert types == [*BEGUN, "task-revoked", "task-received", "task-revoked"]
    return ""


@check("Task events", "rejected")
def rejected(stage: Stage) -> str:
    assert told_of(stage, "", "rejected") == ([], "[]")
    return ""


@check("Task events", "a job with an eta")
def delayed(stage: Stage) -> str:
    assert told_of(stage, "c-1", None, countdown=600) == ([], "[]")
    forget_delayed(stage)
    return ""


@check("Task events", "a copy of a job that is over")
def copy(stage: Stage) -> str:
    assert told_of(stage, "c-1", "locked", task_id="copied-1")[0] == [*BEGUN, "task-succeeded"]
    assert told_of(stage, "c-1", "locked", task_id="copied-1")[0] == BEGUN
    return ""


# -----------------------------------------------------------------------------------------------------------------


def each_check() -> Iterator[Any]:
    """Each check once, with the rows that it is about."""
    for title, checks in CHECKS.items():
        for function in dict.fromkeys(checks.values()):
            about = [one for one in checks if checks[one] is function]
            yield pytest.param(function, title, about, id=function.__name__)


@pytest.mark.parametrize(("function", "title", "about"), list(each_check()))
def test_the_page_tells_the_truth(tools: Stage, function: Callable[[Stage], str], title: str, about: list[str]) -> None:
    answer = " ".join(function(tools).split())

    assert PRIVATE not in answer
    for one in about:
        for sentence in quoted(rows(title)[one]):
            assert sentence in answer


def test_each_row_has_a_check_and_each_check_a_row() -> None:
    assert {title: {*checks} for title, checks in CHECKS.items()} == {title: {*rows(title)} for title in CHECKS}


@pytest.mark.parametrize("command", ["enable_events", "disable_events", "heartbeat"])
def test_a_worker_that_cannot_send_events_says_so(quiet: Stage, command: str) -> None:
    answers: Any = quiet.producer.control.broadcast(command, destination=[QUIET], reply=True, timeout=10, limit=1)
    assert "has no effect here" in answers[0][QUIET]["error"]
    assert answers[0][QUIET]["error"].endswith("with -E")
