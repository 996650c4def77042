"""What ``lock-worker watch`` shows of the results stream."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from sandbox.redis_server import RedisServer
from tests.cli.terminal import Terminal

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


def test_what_others_write_to_the_stream_is_passed_over(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.xadd(STREAM, {"something": "else"})
    for junk in (b"", b"\xff", b"[1", b"[]", b'{"id": 1}', b'{"data": {"error": 1}}', b"[" * 100_000):
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


def test_a_reader_that_goes_away_ends_it(terminal: Terminal, redis_client: redis.Redis) -> None:
    publish(redis_client, event("job-1"))
    watch = terminal.start("watch", "--json", "--from-start", stderr=subprocess.PIPE)
    with watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        watch.stdout.close()
        publish(redis_client, event("job-2"))
        assert watch.stderr is not None
        assert watch.stderr.read() == b""
        watch.wait(30)


def test_a_key_of_another_type_is_told(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.set(STREAM, "no stream")
    ended = terminal.run("watch")
    assert ended.returncode == 1
    assert "WRONGTYPE" in ended.stderr


def test_an_unknown_outcome_is_refused(terminal: Terminal) -> None:
    ended = terminal.run("watch", "--outcome", "looked")
    assert ended.returncode == 2
    assert "would_lock" in ended.stderr
