"""What ``lock-worker watch`` shows of the results stream."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis

from sandbox.redis_server import RedisServer
from tests.cli.terminal import Terminal, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

STREAM = "moderation.results"


def event(job_id: str, outcome: str = "locked", subject: str = "c-1", detail: str = "") -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": job_id, "source": "/lock-worker", "type": "conversation.locked", "subject": subject,
        "time": "2026-11-22T15:04:05.123456Z", "datacontenttype": "application/json",
        "data": {
            "job_id": job_id, "outcome": outcome, "attempts": 2, "job": None, "conversation": None,
            "error": {"type": "refused", "title": "", "status": 409, "detail": detail} if detail else None,
        },
    }  # fmt: skip


def publish(client: redis.Redis, *events: dict[str, Any]) -> None:
    for each in events:
        client.xadd(STREAM, {"event": json.dumps(each, ensure_ascii=False)})


def lines(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def peak_kib(terminal: Terminal, *arguments: str) -> int:
    """The memory that a command had at most."""
    with terminal.start(*arguments) as process:
        assert process.stdout is not None
        while process.stdout.read(65_536):
            pass
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    return usage.ru_maxrss


@contextmanager
def watching(terminal: Terminal) -> Iterator[subprocess.Popen[bytes]]:
    """A watch that has begun, until Ctrl-C; then it must end with status 0."""
    with redis.Redis.from_url(terminal.environment["REDIS_URL"]) as client:
        publish(client, event("begin"))
        watch = terminal.start("watch", "--json", "--last", "1")
        with watch:
            try:
                assert watch.stdout is not None
                assert json.loads(watch.stdout.readline())["id"] == "begin"
                yield watch
                watch.send_signal(signal.SIGINT)
                assert watch.wait(30) == 0
            finally:
                watch.kill()


def test_json_gives_one_event_a_line_unchanged(terminal: Terminal, redis_client: redis.Redis) -> None:
    events = [event("job-1"), event("job-2", "refused", "ünï\U0001f512", "no")]
    publish(redis_client, *events)
    assert lines(terminal.run("watch", "--json", "--from-start", "--count", "2")) == events


def test_events_come_as_they_happen_until_ctrl_c(terminal: Terminal, redis_client: redis.Redis) -> None:
    with watching(terminal) as watch:
        for number in range(3):
            publish(redis_client, event(f"job-{number}"))
            assert watch.stdout is not None
            assert json.loads(watch.stdout.readline())["id"] == f"job-{number}"


def test_only_what_is_asked_for_is_shown(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, event("a"), event("b", "refused"), event("c", "rejected"), event("b"))
    shown = terminal.run(
        "watch", "--json", "--from-start", "--count", "2", "--outcome", "refused", "--outcome", "rejected"
    )
    assert [each["id"] for each in lines(shown)] == ["b", "c"]
    shown = terminal.run("watch", "--json", "--from-start", "--count", "1", "--job", "b", "--outcome", "locked")
    assert lines(shown) == [event("b")]


def test_a_conversation_and_a_rule_can_be_asked_for(terminal: Terminal, redis_client: redis.Redis) -> None:
    def of(job_id: str, conversation: str, rule: str | None) -> dict[str, Any]:
        told = event(job_id, subject=conversation)
        told["data"]["job"] = {"conversation_id": conversation, "rule_id": rule}
        return told

    first, second, third = of("a", "c-1", "r-1"), of("b", "c-2", "r-1"), of("c", "c-1", None)
    publish(redis_client, first, second, third)

    def ids(*arguments: str) -> list[str]:
        return [each["id"] for each in lines(terminal.run("watch", "--json", *arguments))]

    assert ids("--from-start", "--count", "2", "--conversation", "c-1") == ["a", "c"]
    assert ids("--from-start", "--count", "2", "--rule", "r-1") == ["a", "b"]
    assert ids("--from-start", "--count", "1", "--rule", "r-1", "--conversation", "c-2") == ["b"]
    assert ids("--last", "1", "--count", "1", "--rule", "r-1") == ["b"]
    ended = terminal.run("watch", "--last", "1", "--rule", "r-9", "--timeout", "0.2")
    assert ended.returncode == 1
    assert "0 events of rule r-9 came in 0.2 s" in ended.stderr


def test_an_event_with_an_id_of_its_own_is_shown_for_its_job(terminal: Terminal, redis_client: redis.Redis) -> None:
    own = {**event("job-1"), "id": "an id of its own"}
    publish(redis_client, event("job-2"), own)

    shown = terminal.run("watch", "--from-start", "--count", "1", "--job", "job-1", TZ="UTC")

    assert shown.stdout == "15:04:05 locked     c-1 (2 calls) job-1\n"


def test_the_last_events_can_be_asked_for(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, *(event(f"job-{number}") for number in range(5)))
    shown = terminal.run("watch", "--json", "--last", "2", "--count", "2")
    assert [each["id"] for each in lines(shown)] == ["job-3", "job-4"]
    shown = terminal.run("watch", "--json", "--last", "9", "--count", "5")
    assert len(lines(shown)) == 5


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("2", ["job-3", "job-6", "new"]),
        ("3", ["job-0", "job-3", "job-6", "new"]),
        ("9", ["job-0", "job-3", "job-6", "new"]),
        ("0", ["new"]),
    ],
)
def test_the_last_events_are_counted_after_the_choice(
    terminal: Terminal, redis_client: redis.Redis, last: str, expected: list[str]
) -> None:
    publish(redis_client, *(event(f"job-{number}", "locked" if number % 3 else "rejected") for number in range(8)))

    with terminal.start("watch", "--json", "--last", last, "--outcome", "rejected", stderr=subprocess.PIPE) as watch:
        assert watch.stderr is not None
        assert watch.stdout is not None
        assert b"waiting for" in watch.stderr.readline()
        publish(redis_client, event("other"), event("new", "rejected"))
        shown = [json.loads(watch.stdout.readline())["id"] for _ in expected]
        watch.send_signal(signal.SIGINT)

    assert shown == expected


def test_the_last_events_of_one_job_are_found_far_back(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, event("old"), *(event(f"job-{number}") for number in range(300)))
    redis_client.xadd(STREAM, {"something": "else"})

    shown = terminal.run("watch", "--json", "--last", "1", "--job", "old", "--count", "1")

    assert [each["id"] for each in lines(shown)] == ["old"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--job", "nobody", "--count", "1"], 1, "0 of 1 events of job nobody came in 0.2 s"),
        (["--outcome", "poisoned", "--from-start"], 1, "0 events with outcome poisoned came in 0.2 s"),
        (["--from-start", "--count", "9"], 1, "2 of 9 events came in 0.2 s"),
        (["--from-start"], 0, ""),
        (["--from-start", "--count", "2"], 0, ""),
    ],
    ids=str,
)
def test_a_timeout_ends_the_wait_with_a_status_that_scripts_can_tell(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str], status: int, said: str
) -> None:
    publish(redis_client, event("job-1"), event("job-2", "refused"))

    ended = terminal.run("watch", "--timeout", "0.2", *arguments)

    assert ended.returncode == status
    assert said in ended.stderr
    assert ("--from-start" in arguments and "poisoned" not in arguments) == bool(ended.stdout)


def test_a_timeout_holds_while_redis_is_away_too(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary) as server:
        terminal = Terminal({"REDIS_URL": server.url}, tmp_path)
        with terminal.start("watch", "--timeout", "1", stderr=subprocess.PIPE) as watch:
            assert watch.stderr is not None
            assert b"waiting for new events in" in watch.stderr.readline()
            server.kill()
            said = watch.stderr.read().decode()

    assert watch.returncode == 1
    assert "0 events came in 1 s" in said


def test_it_says_what_it_waits_for_and_where_earlier_events_are(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, event("ended"))

    ended = terminal.run("watch", "--job", "ended", "--outcome", "locked", "--timeout", "0.1")

    waiting, _ = ended.stderr.splitlines()
    assert waiting.startswith(
        f"lock-worker: waiting for new events of job ended with outcome locked in {STREAM} at 127.0.0.1:"
    )
    assert waiting.endswith("; --from-start and --last show what came before")


def test_it_goes_on_when_its_server_is_a_replica_for_a_while(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary, {"replica-serve-stale-data": "no"}) as server:
        terminal = Terminal({"REDIS_URL": server.url}, tmp_path)
        with watching(terminal) as watch, redis.Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", 1)
            eventually(lambda: client.info("clients")["blocked_clients"] == 0, "a watch that was sent away")
            client.replicaof("NO", "ONE")
            publish(client, event("after"))
            assert watch.stdout is not None
            assert json.loads(watch.stdout.readline())["id"] == "after"


def test_large_events_are_read_a_few_at_a_time(server_binary: ServerBinary, tmp_path: Path) -> None:
    # A server that throws out whoever lets more than 12 MiB of answers pile up.
    with (
        RedisServer(server_binary, {"client-output-buffer-limit": "normal 12mb 0 0"}) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        publish(client, *(event(f"small-{number}") for number in range(100)))
        publish(client, *(event(f"large-{number}", "refused", detail="x" * 260_000) for number in range(60)))
        publish(client, *(event(f"huge-{number}", detail="x" * 1_000_000) for number in range(20)))
        terminal = Terminal({"REDIS_URL": server.url}, tmp_path)

        everything = terminal.run("watch", "--json", "--from-start", "--count", "180", "--timeout", "30")
        last = terminal.run("watch", "--json", "--last", "5", "--outcome", "refused", "--count", "5")

    assert len(lines(everything)) == 180
    assert [each["id"] for each in lines(last)] == [f"large-{number}" for number in range(55, 60)]


def test_large_events_fill_no_memory(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, *(event(f"job-{number}", detail="x" * 1_000_000) for number in range(100)))

    little = peak_kib(terminal, "watch", "--timeout", "0.1")
    much = peak_kib(terminal, "watch", "--json", "--from-start", "--count", "100")

    assert much - little < 40 * 1024


def test_a_line_for_people_tells_what_came_of_a_job(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, event("job-1", "refused", "c-7", "The API forbids it."))
    shown = terminal.run("watch", "--from-start", "--count", "1", TZ="UTC")
    assert shown.stdout == "15:04:05 refused    c-7 (2 calls) job-1 The API forbids it.\n"


def test_nothing_in_an_event_is_obeyed_by_a_terminal(terminal: Terminal, redis_client: redis.Redis) -> None:
    evil = "\x1b[2J\r\n\u202e\x9b31m[red]"
    publish(redis_client, event(evil, "refused", evil, evil))
    as_line = terminal.run("watch", "--from-start", "--count", "1").stdout
    assert as_line.count("\n") == 1
    assert as_line.strip("\n").isprintable()
    assert as_line.count("[red]") == 3
    as_json = terminal.run("watch", "--from-start", "--count", "1", "--json").stdout
    assert as_json.strip("\n").isprintable()
    assert json.loads(as_json) == event(evil, "refused", evil, evil)


def test_on_a_terminal_there_is_a_table_that_obeys_nothing_either(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    evil = "\x1b]0;gotcha\x07[red]"
    publish(redis_client, event("job-1", "refused", evil, evil))
    status, shown = terminal.run_on_a_terminal("watch", "--from-start", "--count", "1", columns=100)
    assert status == 0
    assert "1 event, " in shown
    assert "1 refused" in shown
    assert "\x1b]0;" not in shown
    assert "\\u001b]0;gotcha\\u0007[red]" in shown


JOB_ID = "6f1f7c1e-8d0a-4c57-9d0e-3a1f5c7b9e11"


def shown_at(terminal: Terminal, columns: int, rows: int = 24) -> list[str]:
    """The screen's lines as they were drawn last."""
    status, written = terminal.run_on_a_terminal("watch", "--from-start", "--timeout", "1", columns=columns, rows=rows)
    assert status == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    last = plain[plain.rindex("events in") :]
    return [line.rstrip() for line in last.replace("\r", "").splitlines()]


@pytest.mark.parametrize("columns", [100, 120, 160, 240])
def test_ids_are_whole_where_there_is_room(terminal: Terminal, redis_client: redis.Redis, columns: int) -> None:
    publish(redis_client, event(JOB_ID, "refused", "c-1", "The API knows no such conversation. " * 5))

    (row,) = [line for line in shown_at(terminal, columns) if "refused" in line and "2" in line and "c-1" in line]

    assert JOB_ID in row
    assert len(row) <= columns
    assert "The API" in row


def test_long_ids_of_both_kinds_are_whole_on_a_wide_terminal(terminal: Terminal, redis_client: redis.Redis) -> None:
    conversation = f"conversation-{JOB_ID}"
    publish(redis_client, event(JOB_ID, "refused", conversation, "The API knows no such conversation."))

    shown = "\n".join(shown_at(terminal, 160))

    assert JOB_ID in shown
    assert conversation in shown


@pytest.mark.parametrize(("columns", "conversation"), [(80, "c-1"), (100, f"c-{JOB_ID}")])
def test_other_columns_make_room_for_ids(
    terminal: Terminal, redis_client: redis.Redis, columns: int, conversation: str
) -> None:
    publish(redis_client, event(JOB_ID, "refused", conversation, "The API knows no such conversation."))

    (row,) = [line for line in shown_at(terminal, columns) if JOB_ID in line]

    assert conversation in row
    assert "refused" in row
    assert len(row) <= columns


@pytest.mark.parametrize(("columns", "rows"), [(20, 5), (40, 10), (59, 6), (60, 24), (80, 24)])
def test_a_small_terminal_shows_the_newest_events_in_a_line_each(
    terminal: Terminal, redis_client: redis.Redis, columns: int, rows: int
) -> None:
    publish(redis_client, *(event(f"job-{number}", "refused", "c-1", "no " * 50) for number in range(40)))

    shown = shown_at(terminal, columns, rows)

    assert max(map(len, shown)) <= columns
    assert len(shown) <= rows
    if columns >= 40:
        assert "job-39" in shown[-1]


def test_what_others_write_to_the_stream_is_passed_over(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.xadd(STREAM, {"something": "else"})
    endless = json.dumps({**event("endless"), "data": {**event("endless")["data"], "attempts": 1e999}}).encode()
    for junk in (b"", b"\xff", b"[1", b"[]", b'{"id": 1}', b'{"data": {"error": 1}}', b"[" * 100_000, endless):
        redis_client.xadd(STREAM, {"event": junk})
    pretty = json.dumps(event("job-1"), indent=1)
    redis_client.xadd(STREAM, {"event": pretty})
    assert lines(terminal.run("watch", "--json", "--from-start", "--count", "1")) == [event("job-1")]


def test_no_event_is_missed_when_redis_restarts(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary, {"appendonly": "yes", "appendfsync": "always"}) as server:
        terminal = Terminal({"REDIS_URL": server.url}, tmp_path)
        with watching(terminal) as watch:
            server.restart()
            with redis.Redis.from_url(server.url) as client:
                publish(client, event("after"))
            assert watch.stdout is not None
            assert json.loads(watch.stdout.readline())["id"] == "after"


def test_that_redis_went_away_and_came_back_is_reported_once_each(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary) as server:
        terminal = Terminal({"REDIS_URL": server.url}, tmp_path)
        watch = terminal.start("watch", "--json", stderr=subprocess.PIPE)
        with watch:
            try:
                assert watch.stderr is not None
                assert b"waiting for new events in" in watch.stderr.readline()
                server.kill()
                assert watch.stderr.readline().endswith(b"; trying again\n")
                server.start()
                assert watch.stderr.readline().endswith(b" is back\n")
                watch.send_signal(signal.SIGINT)
                assert watch.stderr.read() == b""
            finally:
                watch.kill()


def test_a_reader_that_goes_away_ends_it(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, event("job-1"))
    watch = terminal.start("watch", "--json", "--from-start", stderr=subprocess.PIPE)
    with watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        watch.stdout.close()
        publish(redis_client, event("job-2"))
        assert watch.stderr is not None
        said = watch.stderr.read().decode()
        watch.wait(30)
    assert [line for line in said.splitlines() if "waiting for events" not in line] == []


def test_a_key_of_another_type_is_reported(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.set(STREAM, "no stream")
    ended = terminal.run("watch")
    assert ended.returncode == 1
    assert "WRONGTYPE" in ended.stderr


def test_an_unknown_outcome_is_refused(terminal: Terminal) -> None:
    ended = terminal.run("watch", "--outcome", "looked")
    assert ended.returncode == 2
    assert "would_lock" in ended.stderr


@pytest.mark.parametrize("option", ["--job", "--conversation"])
def test_an_empty_id_is_refused_as_no_event_would_ever_have_it(terminal: Terminal, option: str) -> None:
    ended = terminal.run("watch", option, "")
    assert ended.returncode == 2
    assert "take an id, which is not empty" in ended.stderr
