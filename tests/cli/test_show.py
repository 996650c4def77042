"""What ``lock-worker show`` finds, wherever a job is, and what it tells of it."""

from __future__ import annotations

import base64
import json
import re
import signal
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.in_redis import DEAD, KEYS, QUEUE, RESULTS, dead_letter, event, message, now_ms, put_record, remember
from worker.broker.keys import Keys
from worker.cli.show.ready import ready_messages
from worker.cli.show.wanted import Wanted
from worker.message.selector import Selector

if TYPE_CHECKING:
    import redis

    from tests.cli.terminal import Terminal

FIELDS = {
    "job_id", "state", "conversation_id", "queue", "attempts", "received_at", "worker", "due_at", "history", "event",
    "dead_letter",
}  # fmt: skip
CALL = [1_795_359_845_250, 0, 503, "server_error", None, 12.5]
#: A message of Celery's protocol 1, whose body holds the id.
OLD_BODY = {"task": "moderation.lock_conversation", "id": "jöb-1", "kwargs": {"conversation_id": "c-1"}}
OLD = json.dumps(
    {
        "body": base64.b64encode(json.dumps(OLD_BODY).encode()).decode(),
        "content-type": "application/json",
        "properties": {"body_encoding": "base64"},
    }
).encode()
PROGRESS = json.dumps([["server_error", "It failed.", 503], 0, 0, 0, None, 0, 0, [CALL]])


def show(terminal: Terminal, *arguments: str, status: int = 0) -> Any:
    ended = terminal.run("show", *arguments, "--json")
    assert ended.returncode == status, ended.stderr
    return json.loads(ended.stdout)


def lines(terminal: Terminal, *arguments: str) -> list[str]:
    ended = terminal.run("show", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_job_that_nobody_knows_is_unknown(terminal: Terminal) -> None:
    found = show(terminal, "job-1", status=1)

    assert set(found) >= FIELDS
    assert (found["job_id"], found["state"], found["event"]) == ("job-1", "unknown", None)
    ended = terminal.run("show", "job-1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no job job-1 was found" in ended.stderr


@pytest.mark.parametrize("key", [*KEYS.priority_lists, KEYS.arrived])
def test_a_message_that_no_worker_has_taken_is_ready(terminal: Terminal, redis_client: redis.Redis, key: str) -> None:
    redis_client.lpush(key, message("other"), message(), message("another"))

    found = show(terminal, "job-1")

    assert set(found) >= FIELDS
    assert (found["state"], found["conversation_id"], found["queue"]) == ("ready", "c-1", QUEUE)
    assert (found["attempts"], found["received_at"], found["worker"], found["history"]) == (0, None, None, [])


@pytest.mark.parametrize(
    ("index", "where"), [(KEYS.requeued, "requeued"), (KEYS.retries, "retries"), (KEYS.suspects, "suspects")]
)
def test_a_job_that_is_ready_again_is_found_by_its_record(
    terminal: Terminal, redis_client: redis.Redis, index: str, where: str
) -> None:
    redis_client.rpush(index, put_record(redis_client, attempts=2, crashes=1, progress=PROGRESS))

    found = show(terminal, "job-1")

    assert (found["state"], found["attempts"], found["due_at"]) == ("ready", 2, None)
    assert [one["where"] for one in found["messages"]] == [where]
    (call,) = found["history"]
    assert (call["what"], call["status"], call["error"], call["wait_seconds"]) == ("call", 503, "server_error", 12.5)
    told = "\n".join(lines(terminal, "job-1"))
    assert "called: 503 Service Unavailable (server_error); then a wait of 12.5 s" in told


def test_a_job_in_flight_names_its_worker(terminal: Terminal, redis_client: redis.Redis) -> None:
    ref = put_record(redis_client, lease_token="pod-1-12-abc.7")
    redis_client.zadd(KEYS.leases, {ref: now_ms() + 20_000})

    found = show(terminal, "job-1")

    assert (found["state"], found["worker"], found["due_at"]) == ("in_flight", "pod-1-12-abc", None)
    assert re.match(r"job-1: in flight at pod-1-12-abc; its lease ends in 1\d\.\d s", lines(terminal, "job-1")[0])


def test_a_delayed_job_says_when_it_is_due(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.zadd(KEYS.delayed, {put_record(redis_client, attempts=1): 1_900_000_000_000})

    found = show(terminal, "job-1")

    assert (found["state"], found["due_at"]) == ("delayed", "2030-03-17T17:46:40.000Z")
    assert "delayed; it is due in " in lines(terminal, "job-1")[0]


def put_held(client: redis.Redis, since_ms: int, hold: str) -> None:
    """A job that was set aside at this time, after pauses of an hour: the clock of ages is that much behind."""
    told = json.dumps([None, 0, 0, 0, None, 0, 0, [[since_ms, 1, None, None, "hold", None]]])
    ref = put_record(client, progress=told, held_at=since_ms - 3_600_000)
    client.zadd(KEYS.held, {f"{hold}:{ref}": 0})


def test_a_job_that_is_set_aside_names_its_hold_and_since_when(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("hold", "--rule", "r-7", "--reason", "it locks too much", LOCK_WORKER_ACTOR="ann")
    since = now_ms() - 90_000
    put_held(redis_client, since, Selector(rule="r-7").digest)

    found = show(terminal, "job-1")
    told = lines(terminal, "job-1")

    (place,) = found["messages"]
    assert found["state"] == "held"
    assert datetime.fromisoformat(place["held_since"]).timestamp() * 1000 == pytest.approx(since)
    assert (place["hold"]["selector"], place["hold"]["by"]) == ({"rule": "r-7"}, "ann")
    assert re.fullmatch(r"job-1: held for 1 min 3\d s", told[0])
    assert any(re.fullmatch(r"  hold +--rule r-7, by ann at .*: it locks too much", line) for line in told)


def test_a_job_whose_hold_is_ended_is_said_to_go_on(terminal: Terminal, redis_client: redis.Redis) -> None:
    put_held(redis_client, now_ms() - 90_000, Selector(rule="r-7").digest)

    assert lines(terminal, "job-1")[0].endswith("; its hold is ended, and it goes on in a moment")


def test_a_job_whose_id_is_cancelled_says_so_before_a_worker_takes_it(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    terminal.run("cancel", "job-1", "--reason", "a mistake", LOCK_WORKER_ACTOR="ann")

    ended = terminal.run("show", "job-1")
    redis_client.lpush(QUEUE, message())

    assert (ended.returncode, "Its id is cancelled by ann at " in ended.stderr) == (1, True)
    assert "If it comes, it ends without a call." in ended.stderr
    assert show(terminal, "job-1")["cancel"]["by"] == "ann"
    told = "\n".join(lines(terminal, "--conversation", "c-1"))
    assert re.search(r"  cancelled +by ann at .*: a mistake \(no further call begins\)", told)


def test_a_job_that_has_ended_is_told_by_its_event(terminal: Terminal, redis_client: redis.Redis) -> None:
    call = {"time": "2026-11-22T15:04:04.500Z", "what": "call", "status": 502, "error": "server_error"}
    history = [{**call, "reason": None, "wait_seconds": 0.25}]
    told = event(attempts=2, history=history)
    redis_client.xadd(RESULTS, {"event": told})

    found = show(terminal, "job-1")

    assert (found["state"], found["attempts"], found["event"]) == ("ended", 2, json.loads(told))
    assert (found["received_at"], found["dead_letter"]) == ("2026-11-22T15:04:04.000000Z", None)
    assert found["history"] == history
    shown = lines(terminal, "job-1")
    assert shown[0].startswith("job-1: ended as locked ")
    assert any(line.endswith("called: 502 Bad Gateway (server_error); then a wait of 250 ms") for line in shown)
    assert shown[-1].endswith("ended: locked")


def test_a_dead_letter_is_named(terminal: Terminal, redis_client: redis.Redis) -> None:
    entry = dead_letter(redis_client)
    redis_client.xadd(RESULTS, {"event": event("job-1", "exhausted")})

    found = show(terminal, "job-1")

    assert (found["state"], found["queue"], found["events"]) == ("ended", QUEUE, 1)
    assert found["dead_letter"] == {"entry": entry, "queue": QUEUE}
    assert f"lock-worker dead show {entry}" in "\n".join(lines(terminal, "job-1"))


def test_a_dead_letter_tells_of_a_job_whose_event_was_trimmed(terminal: Terminal, redis_client: redis.Redis) -> None:
    dead_letter(redis_client)

    found = show(terminal, "job-1")

    assert (found["state"], found["outcome"], found["event"]["data"]["job_id"]) == ("ended", "exhausted", "job-1")


@pytest.mark.parametrize(("outcome", "told"), [("", "locked"), ("refused", "refused")])
def test_the_id_memory_tells_of_a_job_without_an_event(
    terminal: Terminal, redis_client: redis.Redis, outcome: str, told: str
) -> None:
    remember(redis_client, "job-1", "ended", outcome)

    found = show(terminal, "job-1")

    assert (found["state"], found["outcome"], found["event"]) == ("ended", told, None)
    assert lines(terminal, "job-1")[0] == f"job-1: ended as {told}; its event is not in the stream any more"


def test_an_id_that_a_worker_has_claimed_is_no_job_that_was_found(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    remember(redis_client, "job-1", "claimed")

    ended = terminal.run("show", "job-1")

    assert ended.returncode == 1
    assert "a worker took it" in ended.stderr


def test_several_messages_of_one_job_are_told(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.lpush(QUEUE, message(retries=1), message(retries=2))
    redis_client.zadd(KEYS.delayed, {put_record(redis_client): now_ms() + 60_000})
    redis_client.xadd(RESULTS, {"event": event()})

    found = show(terminal, "job-1")

    assert (found["state"], found["events"]) == ("delayed", 1)
    assert sorted(one["state"] for one in found["messages"]) == ["delayed", "ready", "ready"]
    told = "\n".join(lines(terminal, "job-1"))
    assert "3 messages of this job have not ended" in told
    assert "A job of this id has ended already: locked" in told


def test_all_jobs_of_a_conversation_are_listed(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.lpush(QUEUE, message("new"), message("other", "c-2"), message(None))
    redis_client.zadd(KEYS.delayed, {put_record(redis_client, raw=message("delayed")): now_ms() + 60_000})
    redis_client.xadd(RESULTS, {"event": event("first")})
    redis_client.xadd(RESULTS, {"event": event("second")})
    redis_client.xadd(RESULTS, {"event": event("third", conversation="c-2")})

    found = show(terminal, "--conversation", "c-1")

    assert [(job["job_id"], job["state"]) for job in found] == [
        (None, "ready"), ("new", "ready"), ("delayed", "delayed"), ("second", "ended"), ("first", "ended"),
    ]  # fmt: skip
    assert len([line for line in lines(terminal, "--conversation", "c-1") if line and not line.startswith(" ")]) == 5


def test_a_conversation_without_jobs_is_an_empty_list(terminal: Terminal) -> None:
    assert show(terminal, "--conversation", "c-1", status=1) == []


def test_jobs_on_other_queues_of_the_fleet_are_found(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.zadd(KEYS.queues, {"bulk.lock": now_ms()})
    redis_client.lpush("bulk.lock", message())

    assert show(terminal, "job-1")["queue"] == "bulk.lock"


def test_it_changes_nothing(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.lpush(QUEUE, message())
    redis_client.zadd(KEYS.delayed, {put_record(redis_client): now_ms() + 60_000})
    redis_client.xadd(RESULTS, {"event": event()})
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter()}

    show(terminal, "job-1")
    show(terminal, "--conversation", "c-1")

    assert {key: redis_client.dump(key) for key in redis_client.scan_iter()} == before


def test_texts_of_producers_are_escaped(terminal: Terminal, redis_client: redis.Redis) -> None:
    turned = "c-\u202e1"
    redis_client.lpush(QUEUE, message("job-1", turned), message("job-3", "c-\x1b[2J"))
    redis_client.xadd(RESULTS, {"event": event("job-2", "refused", turned)})

    told = "\n".join(lines(terminal, "job-1") + lines(terminal, "job-3") + lines(terminal, "--conversation", turned))

    assert "\x1b" not in told
    assert "\u202e" not in told
    assert len(show(terminal, "--conversation", turned)) == 2


@pytest.mark.parametrize(
    "arguments", [(), ("job-1", "--conversation", "c-1"), ("",), ("--conversation", ""), ("job-1", "--events", "-1")]
)
def test_wrong_use_ends_with_status_2(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    assert terminal.run("show", *arguments).returncode == 2


def test_only_the_newest_events_are_looked_at_if_asked(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.xadd(RESULTS, {"event": event("job-1")})
    redis_client.xadd(RESULTS, {"event": event("job-2")})

    show(terminal, "job-1", "--events", "1", status=1)
    assert show(terminal, "job-2", "--events", "1")["state"] == "ended"


def test_junk_in_every_place_is_no_obstacle(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.lpush(QUEUE, b"\xff\x00", b"{}", b"[1]", message())
    redis_client.rpush(KEYS.requeued, b"\xff", "nobody", put_record(redis_client, progress=b"\xff", attempts="x"))
    redis_client.set(f"{KEYS.record_prefix}nobody", "somebody's own")
    redis_client.xadd(RESULTS, {"event": b"\xff"})
    redis_client.xadd(DEAD, {"other": "1"})

    assert len(show(terminal, "job-1")["messages"]) == 2


@pytest.mark.parametrize(
    "raw",
    [message("jöb-1"), json.dumps(json.loads(message("jöb-1")), ensure_ascii=False).encode(), OLD],
    ids=["escaped", "as it is", "protocol 1"],
)
def test_a_message_of_a_wanted_job_is_never_skipped_undecoded(
    terminal: Terminal, redis_client: redis.Redis, raw: bytes
) -> None:
    redis_client.lpush(QUEUE, raw)

    assert Wanted("jöb-1").may_be_in_message(raw)
    assert show(terminal, "jöb-1")["state"] == "ready"


def test_a_long_queue_is_read_in_pages(redis_client: redis.Redis) -> None:
    for start in range(0, 3000, 1000):
        redis_client.lpush(QUEUE, *(f"m-{number}" for number in range(start, start + 1000)))

    pages = [page for _, page in ready_messages(redis_client, KEYS)]

    assert max(map(len, pages)) <= 500
    assert {message for page in pages for message in page} == {b"m-%d" % number for number in range(3000)}


@pytest.mark.parametrize("move", ["pushed", "taken oldest", "taken newest"])
def test_no_message_that_stays_is_missed_while_the_list_moves(redis_client: redis.Redis, move: str) -> None:
    redis_client.lpush(QUEUE, *(f"m-{number}" for number in range(2000)))
    seen: set[bytes] = set()

    for _, page in ready_messages(redis_client, KEYS):
        seen.update(page)
        if move == "pushed":
            redis_client.lpush(QUEUE, *(f"more-{number}" for number in range(7)))
        elif move == "taken oldest":
            redis_client.rpop(QUEUE, 7)
        else:
            redis_client.lpop(QUEUE, 7)
            redis_client.hincrby(KEYS.maintenance, "taken_newest", 7)

    left: Any = redis_client.lrange(QUEUE, 0, -1)
    assert {one for one in left if one.startswith(b"m-")} <= seen


def test_ctrl_c_ends_it_with_what_was_found(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.lpush(QUEUE, message())
    for start in range(0, 40_000, 1000):
        redis_client.zadd(KEYS.delayed, {f"nobody-{number}": 1 for number in range(start, start + 1000)})
    redis_client.config_resetstat()
    with terminal.start("show", "job-1") as process:
        while not redis_client.info("commandstats").get("cmdstat_zscan"):  # the lists are behind it
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate()

    assert told.startswith(b"job-1: ready (new)")
    assert process.returncode == 130


def test_a_queue_name_of_its_own_is_used(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.lpush(Keys("other.lock").priority_lists[0], message())

    assert terminal.run("show", "job-1", LOCK_QUEUE="other.lock").returncode == 0
