"""``lock-worker audit`` adds up what became of the jobs that were taken, and says what does not add up."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.workbench import Workbench, link_to
from tests.cli.steered import TYPE_PREFIX, control_events
from tests.cli.terminal import eventually
from worker.broker.keys import Keys
from worker.broker.records import Delay
from worker.cli.audit import records
from worker.cli.audit.records import check_records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis

    from tests.cli.terminal import Terminal

KEYS = Keys("moderation.lock")


@pytest.fixture
async def bench(redis_client: redis.Redis, redis_url: str) -> AsyncIterator[Workbench]:
    link = link_to(redis_url, timeout_seconds=5)
    yield Workbench(redis_client, link)
    await link.disconnect()


def audit(terminal: Terminal, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what is told of the first queue."""
    ended = terminal.run("audit", "--json", *arguments)
    assert ended.stderr == ""
    found = json.loads(ended.stdout)
    assert found["ok"] is (ended.returncode == 0)
    return ended.returncode, dict(found["queues"][0])


def codes(terminal: Terminal, *arguments: str) -> list[str]:
    """The codes of the problems."""
    status, found = audit(terminal, *arguments)
    assert found["ok"] is (status == 0)
    return [each["code"] for each in found["problems"]]


async def a_job_everywhere(bench: Workbench) -> None:
    """Jobs in each place and with each end that moves can bring them to."""
    bench.push(*[b"job %d" % number for number in range(12)])
    jobs = list(bench.take(12, held=12).jobs)
    await bench.moves.complete([bench.completion(job, outcome="locked") for job in jobs[:3]])
    await bench.moves.complete([bench.completion(jobs[3], event=b"", outcome="")])
    await bench.moves.delay([Delay(job, 60.0, is_retry=True, deadline_ms=0, progress=b"") for job in jobs[4:6]])
    await bench.moves.release(jobs[6:9])
    bench.push(b"not taken", b"not taken either")


async def test_jobs_in_every_place_add_up_and_the_sum_is_told_line_by_line(
    bench: Workbench, terminal: Terminal
) -> None:
    await a_job_everywhere(bench)

    status, found = audit(terminal)

    assert (status, found["problems"], found["missing"]) == (0, [], 0)
    assert (found["taken"], found["sum"], found["ready"]) == (12, 12, 2)
    assert found["terms"] == {
        "finished": 3, "duplicates_dropped": 1, "vanished": 0, "in_flight": 3, "delayed": 2, "due": 0, "requeued": 3,
        "retries": 0, "suspects": 0, "held": 0,
    }  # fmt: skip
    assert found["outcomes"] == {"locked": 3}
    assert found["records"] == {"checked": 8, "missing": 0, "refs": []}
    shown = terminal.run("audit").stdout.splitlines()
    numbers = {" ".join(line.split()[:3]) for line in shown}
    assert {"taken 12 from", "= finished 3", "+ requeued 3", "+ held 0", "sum 12"} <= numbers
    assert shown[-1] == "It adds up: each job taken has ended with an event, or is where it has to be."


def test_a_queue_that_was_never_used_adds_up(terminal: Terminal) -> None:
    assert audit(terminal)[0] == 0


async def test_held_jobs_are_a_term_of_the_sum(bench: Workbench, terminal: Terminal) -> None:
    job = bench.take_one()
    bench.run("ZREM", KEYS.leases, job.ref)
    assert codes(terminal) == ["missing"]

    bench.run("ZADD", KEYS.held, 0, f"a-hold:{job.ref}")

    status, found = audit(terminal)
    assert (status, found["terms"]["held"], found["records"]["checked"]) == (0, 1, 1)


@pytest.mark.parametrize("place", ["leases", "delayed", "requeued"])
async def test_an_index_that_somebody_deleted_is_noticed(bench: Workbench, terminal: Terminal, place: str) -> None:
    await a_job_everywhere(bench)
    kept = bench.run("ZCARD" if place != "requeued" else "LLEN", getattr(KEYS, place))

    bench.run("DEL", getattr(KEYS, place))

    status, found = audit(terminal)
    assert (status, found["missing"], [each["code"] for each in found["problems"]]) == (1, kept, ["missing"])
    assert "neither ended nor are anywhere" in terminal.run("audit").stdout


async def test_a_deleted_record_is_found_before_its_job_is_counted_as_vanished_and_after(
    bench: Workbench, terminal: Terminal
) -> None:
    await a_job_everywhere(bench)
    ref = bench.run("LINDEX", KEYS.requeued, 0)
    bench.run("DEL", KEYS.record_prefix.encode() + ref)

    status, found = audit(terminal)
    assert (status, found["missing"], found["records"]["refs"]) == (1, 0, [ref.decode()])
    assert codes(terminal) == ["without_record"]
    assert codes(terminal, "--no-deep") == []

    bench.take(1)
    assert codes(terminal) == ["vanished"]

    # as the runbook says, once the job was sent again
    bench.run("HINCRBY", KEYS.counters, "vanished", -1)
    bench.run("HINCRBY", KEYS.counters, "taken", -1)
    assert codes(terminal) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("DEL", KEYS.counters), "too_many"),
        (("HSET", KEYS.counters, "taken", "many"), "too_many"),
        (("HINCRBY", KEYS.counters, "outcome:locked", 1), "outcomes"),
    ],
)
async def test_counters_that_somebody_changed_are_noticed(
    bench: Workbench, terminal: Terminal, change: tuple[str, ...], code: str
) -> None:
    await a_job_everywhere(bench)

    bench.run(*change)

    assert codes(terminal) == [code]


@pytest.mark.parametrize("key", [KEYS.leases, KEYS.requeued, KEYS.held])
async def test_a_key_that_somebody_overwrote_is_named(bench: Workbench, terminal: Terminal, key: str) -> None:
    await a_job_everywhere(bench)
    bench.run("SET", key, "something else")

    assert codes(terminal)[0] == "key_overwritten"
    assert f"The key {key} holds a " in terminal.run("audit").stdout


async def test_other_queues_of_the_fleet_are_added_up_too(bench: Workbench, terminal: Terminal) -> None:
    bench.beside("other").take_one()
    bench.run("ZADD", KEYS.queues, 1, "moderation.lock", 2, "other")
    bench.run("DEL", Keys("other").leases)

    ended = terminal.run("audit", "--json")

    queues = json.loads(ended.stdout)["queues"]
    assert (ended.returncode, [(each["queue"], each["ok"]) for each in queues]) == (
        1,
        [("moderation.lock", True), ("other", False)],
    )


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1700])
def test_each_job_of_a_long_list_and_index_is_looked_at_once(redis_client: redis.Redis, count: int) -> None:
    refs = [f"ref-{number}" for number in range(count)]
    for at, ref in enumerate(refs):
        redis_client.hset(KEYS.record_prefix + ref, "raw", "x")
        if at % 2:
            redis_client.rpush(KEYS.retries, ref)
        else:
            redis_client.zadd(KEYS.delayed, {ref: at})
    redis_client.delete(*[KEYS.record_prefix + ref for ref in refs[::100]], "nothing")

    found = check_records(redis_client, KEYS)

    assert found.checked == count
    assert sorted(found.missing) == sorted(refs[::100])


def test_a_job_that_ends_between_two_looks_is_not_missing(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_client.rpush(KEYS.requeued, "ended", "missing")
    look_again = records._is_missing

    def ends_before(client: redis.Redis, keys: Keys, ref: bytes, holds: set[bytes]) -> bool:
        client.lrem(KEYS.requeued, 1, "ended")
        return look_again(client, keys, ref, holds)

    monkeypatch.setattr(records, "_is_missing", ends_before)

    assert check_records(redis_client, KEYS).missing == ["missing"]


async def vanish(bench: Workbench) -> None:
    """A job whose record somebody deletes, and a take that notices."""
    bench.push(b"a job")
    (job,) = bench.take(1).jobs
    await bench.moves.release([job])
    bench.run("DEL", bench.record_key(job))
    bench.take(1)


async def test_vanished_jobs_that_an_operator_acknowledges_are_noted_and_only_further_ones_count(
    bench: Workbench, terminal: Terminal, redis_client: redis.Redis
) -> None:
    await vanish(bench)
    assert codes(terminal) == ["vanished"]

    ended = terminal.run("audit", "--acknowledge", "--reason", "sent again", LOCK_WORKER_ACTOR="ann")

    assert ended.returncode == 0, ended.stderr
    assert "1 vanished job of moderation.lock acknowledged by ann" in ended.stderr
    assert "sent again" in ended.stderr
    (event,) = control_events(redis_client)
    assert event["type"] == f"{TYPE_PREFIX}acknowledged"
    assert (event["data"]["by"], event["data"]["vanished"]) == ("ann", 1)
    assert codes(terminal) == []
    terminal.run("audit", "--acknowledge", "--reason", "nothing is new")
    assert len(control_events(redis_client)) == 1

    await vanish(bench)
    assert codes(terminal) == ["vanished"]
    assert "1 job were deleted since an operator last acknowledged that." in terminal.run("audit").stdout


async def test_an_acknowledgement_that_is_interrupted_says_what_is_known_of_it(
    bench: Workbench, terminal: Terminal, redis_client: redis.Redis
) -> None:
    await vanish(bench)
    redis_client.client_pause(60_000, all=False)
    try:
        with terminal.start("audit", "--acknowledge", "--reason", "why", stderr=subprocess.PIPE) as command:
            eventually(lambda: redis_client.info("clients")["blocked_clients"] == 1, "the command at the server")
            command.send_signal(signal.SIGINT)
            _, said = command.communicate()
    finally:
        redis_client.client_unpause()

    assert command.returncode == 130
    assert said.decode() == (
        "lock-worker: interrupted\n"
        "Whether it was done is not known; lock-worker audit shows which vanished jobs are not acknowledged.\n"
    )


async def test_an_acknowledgement_that_is_refused_half_way_is_not_said_to_have_changed_nothing(
    bench: Workbench, terminal: Terminal
) -> None:
    await vanish(bench)
    bench.run("SET", "moderation.control", "no stream")

    ended = terminal.run("audit", "--acknowledge", "--reason", "why")

    # The server has noted the number, and then refused the event.
    assert ended.returncode == 1
    assert " refused: WRONGTYPE " in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("Whether it was done is not known; lock-worker audit shows")
    assert codes(terminal) == []


async def test_an_acknowledgement_that_is_refused_before_it_began_changed_nothing(
    bench: Workbench, terminal: Terminal, redis_url: str
) -> None:
    await vanish(bench)
    bench.run("ACL", "SETUSER", "auditor", "on", ">secret", "allkeys", "allchannels", "+@all", "-hset")
    try:
        ended = terminal.run(
            "audit", "--acknowledge", "--reason", "why", REDIS_URL=redis_url.replace("://", "://auditor:secret@")
        )
    finally:
        bench.run("ACL", "DELUSER", "auditor")

    assert ended.returncode == 1
    assert "NOPERM " in ended.stderr
    assert ended.stderr.endswith("\nNothing was changed.\n")
    assert codes(terminal) == ["vanished"]


@pytest.mark.parametrize("options", [("--acknowledge",), ("--reason", "why")])
def test_an_acknowledgement_needs_its_reason(terminal: Terminal, options: tuple[str, ...]) -> None:
    ended = terminal.run("audit", *options)

    assert ended.returncode == 2
    assert "--acknowledge and --reason go together" in ended.stderr
