"""What ``lock-worker replay`` sends again, what stays, and what it says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
import redis
from pydantic import SecretStr
from typer import Exit

from sandbox.redis_server import RedisServer
from settings import Settings
from tasks import verbatim
from tasks.message import Accepted
from tasks.task_name import TASK_NAME
from tests.cli.terminal import Terminal, eventually
from worker.broker.move_limits import KEPT_BYTES
from worker.cli.dead_letters import DeadLetterFilter, pages
from worker.cli.replay.replay import replay_letters
from worker.message.decode import decoder

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

QUEUE, DEAD = "moderation.lock", "moderation.dead"


def message(fields: Any, *, task: str = TASK_NAME, **headers: Any) -> bytes:
    """A message as a foreign client writes it; ``fields`` is a job's, or the whole list of args, kwargs and options."""
    body = fields if isinstance(fields, list) else [[], fields, {}]
    told = {"headers": {"task": task, "id": "old", **headers}, "content-type": "application/json"}
    return json.dumps({**told, "properties": {"body_encoding": "utf-8"}, "body": json.dumps(body)}).encode()


def letter(
    client: redis.Redis,
    job_id: str,
    outcome: str = "exhausted",
    error: str = "server_error",
    *,
    raw: bytes | None = None,
    detail: str = "It failed.",
    event_id: str = "",
    queue: bytes | None = None,
) -> None:
    """A dead letter as the worker writes it, for conversation ``c-1`` unless ``raw`` is another message."""
    event = {
        "specversion": "1.0", "id": event_id or job_id, "source": "/lock-worker", "type": "conversation.lock_failed",
        "subject": "c-1", "time": "2026-11-22T15:04:05.123456Z", "datacontenttype": "application/json",
        "data": {
            "job_id": job_id, "outcome": outcome, "attempts": 8, "job": {"conversation_id": "c-1"},
            "conversation": None, "error": {"type": error, "title": "", "status": 500, "detail": detail},
        },
    }  # fmt: skip
    told = message({"conversation_id": "c-1"}) if raw is None else raw
    client.xadd(DEAD, {"event": json.dumps(event), "message": told, **({} if queue is None else {"queue": queue})})


def sent(client: redis.Redis, key: str = QUEUE) -> list[Accepted]:
    """The jobs on a list as the worker understands them, in the order in which they were sent."""
    messages: Any = client.lrange(key, 0, -1)
    jobs = [decoder(TASK_NAME)(raw, size=len(raw), now=datetime.now(UTC)) for raw in reversed(messages)]
    assert all(isinstance(job, Accepted) for job in jobs)
    return jobs  # type: ignore[return-value]  # seen above


def left(client: redis.Redis) -> list[str]:
    """The ids of the jobs whose letters are still there."""
    entries: Any = client.xrange(DEAD)
    return [json.loads(fields[b"event"])["data"]["job_id"] for _, fields in entries]


def test_the_job_is_sent_again_as_it_was_under_a_new_id_that_names_the_old_one(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    fields = {
        "conversation_id": "c/1", "rule_id": "r-17", "policies": ["p-1"], "dry_run": True, "metadata": {"ünï": [0.5]},
        "requested_at": "2026-11-22T15:04:05Z",
    }  # fmt: skip
    letter(redis_client, "old-1", raw=message(fields))

    ended = terminal.run("replay", "--all")

    assert ended.returncode == 0, ended.stderr
    (job,) = sent(redis_client)
    assert [job.id] == ended.stdout.split()
    assert (job.replay_of, job.subject, job.received_fields, job.ignored) == ("old-1", "c/1", fields, ())
    assert job.id != "old-1"
    assert left(redis_client) == []
    assert f"1 job sent again to {QUEUE} at 127.0.0.1:" in ended.stderr


def test_a_letter_whose_event_has_an_id_of_its_own_goes_by_its_job(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    letter(redis_client, "old-1", "rejected", "invalid_job", event_id="an id of its own")

    shown, ended = terminal.run("replay", "--list"), terminal.run("replay", "old-1")

    assert " old-1 It failed." in shown.stdout
    assert ended.returncode == 0, ended.stderr
    assert [job.replay_of for job in sent(redis_client)] == ["old-1"]


def test_each_job_goes_back_to_the_queue_that_it_came_from(terminal: Terminal, redis_client: redis.Redis) -> None:
    for job_id, queue in (("old-1", QUEUE), ("old-2", "another"), ("old-3", "another"), ("old-4", None)):
        letter(redis_client, job_id, queue=None if queue is None else queue.encode())

    ended = terminal.run("replay", "--all", "--priority", "6")

    assert ended.returncode == 0, ended.stderr
    assert [job.replay_of for job in sent(redis_client, f"{QUEUE}\x06\x166")] == ["old-1", "old-4"]
    assert [job.replay_of for job in sent(redis_client, "another\x06\x166")] == ["old-2", "old-3"]
    assert f"4 jobs sent again to another, {QUEUE} at " in ended.stderr


@pytest.mark.parametrize("queue", [b"", b"\xff\x00", b"lw:1:moderation.lock:job:x", b"q" * 201])
def test_a_letter_that_names_no_queue_a_job_could_have_come_from_goes_to_the_usual_one(
    terminal: Terminal, redis_client: redis.Redis, queue: bytes
) -> None:
    letter(redis_client, "old-1", queue=queue)

    assert terminal.run("replay", "--all").returncode == 0

    assert [job.replay_of for job in sent(redis_client)] == ["old-1"]


def test_its_expiry_its_trace_and_an_eta_to_come_are_kept(terminal: Terminal, redis_client: redis.Redis) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    soon, late = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) + timedelta(hours=2)
    options = {"eta": soon.isoformat(), "expires": late.isoformat(), "traceparent": trace, "tracestate": "a=1"}
    letter(redis_client, "to come", raw=message({"conversation_id": "c-1"}, **options))
    letter(redis_client, "was due", raw=message({"conversation_id": "c-1"}, eta="2026-11-22T15:04:05Z"))

    terminal.run("replay", "--all")

    to_come, was_due = sent(redis_client)
    assert (to_come.not_before, to_come.expires_at) == (soon, late)
    assert (to_come.traceparent, to_come.tracestate) == (trace, "a=1")
    assert (was_due.not_before, was_due.expires_at, was_due.traceparent) == (None, None, None)


def test_its_numbers_are_kept_to_the_last_digit(terminal: Terminal, redis_client: redis.Redis) -> None:
    raw = message({"conversation_id": "c-1", "metadata": {"n": 1.5}}).replace(b"1.5", b"19.990000000000000001")
    letter(redis_client, "old-1", raw=raw)

    terminal.run("replay", "--all")

    (job,) = sent(redis_client)
    assert b'"metadata":{"n":19.990000000000000001}' in verbatim.encode(job.received_fields)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--all"], ["a", "b", "c", "d"]),
        (["b", "d"], ["b", "d"]),
        (["--outcome", "refused"], ["b", "c"]),
        (["--outcome", "refused", "--outcome", "poisoned"], ["b", "c", "d"]),
        (["--error", "forbidden"], ["b"]),
        (["--outcome", "refused", "--error", "not_found"], ["c"]),
        (["c", "--outcome", "refused"], ["c"]),
    ],
    ids=" ".join,
)
def test_only_the_chosen_letters_are_replayed(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str], expected: list[str]
) -> None:
    letter(redis_client, "a")
    letter(redis_client, "b", "refused", "forbidden")
    letter(redis_client, "c", "refused", "not_found")
    letter(redis_client, "d", "poisoned", "poisoned")

    assert terminal.run("replay", *arguments).returncode == 0

    assert [job.replay_of for job in sent(redis_client)] == expected
    assert left(redis_client) == [name for name in "abcd" if name not in expected]


def test_a_job_id_that_no_letter_has_is_named_and_the_others_are_replayed(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    letter(redis_client, "a")

    ended = terminal.run("replay", "a", "nobody")

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[0] == "nobody: there is no such dead letter"
    assert [job.replay_of for job in sent(redis_client)] == ["a"]


def test_a_list_shows_the_letters_and_changes_nothing(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "a")
    letter(redis_client, "b", "rejected", "undecodable", raw=b"junk")

    everything, some = terminal.run("replay", "--list"), terminal.run("replay", "--list", "--error", "undecodable")

    good, bad = everything.stdout.splitlines()
    assert re.fullmatch(r"2026-11-2\d \d\d:\d\d:\d\d exhausted +server_error +c-1 \(8 calls\) a It failed\.", good)
    assert re.search(r"rejected +undecodable +c-1 \(8 calls\) b It failed\. \(no valid job: would stay\)$", bad)
    assert f"2 dead letters in {DEAD} at 127.0.0.1:" in everything.stderr
    assert some.stdout.splitlines() == [bad]
    assert left(redis_client) == ["a", "b"]
    assert sent(redis_client) == []


def test_a_list_can_be_json(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "a")

    ended = terminal.run("replay", "--list", "--json")

    assert json.loads(ended.stdout)["data"]["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"junk", id="no message"),
        pytest.param(message({"conversation_id": "c-1"}, task="moderation.unlock_conversation"), id="another task"),
        pytest.param(message([["c-1"], [{"dry_run": True}], {}]), id="keyword arguments that are none"),
        pytest.param(message([["c-1", {"dry_run": True}], {}, {}]), id="too many arguments"),
        pytest.param(message([["c-1"], {"dry_run": True}, {}]), id="both kinds of arguments"),
        pytest.param(message({"conversation_id": "c-1", "dryrun": True}), id="a misspelt field"),
        pytest.param(message({"conversation_id": "c-1"}, expires="tomorrow"), id="an expiry that cannot be read"),
        pytest.param(message({"conversation_id": "c-1"}, eta="2999-01-01T00:00:00Z"), id="an eta too far away"),
    ],
)
@pytest.mark.parametrize(("outcome", "why"), [("rejected", "What was wrong."), ("poisoned", None)])
def test_a_message_that_is_no_valid_job_is_not_sent_though_something_was_understood_of_it(
    terminal: Terminal, redis_client: redis.Redis, raw: bytes, outcome: str, why: str | None
) -> None:
    letter(redis_client, "bad", outcome, "invalid_job", raw=raw, detail="What was wrong.")

    ended = terminal.run("replay", "--all")

    assert (ended.returncode, ended.stdout) == (1, "")
    told, end = ended.stderr.splitlines()
    assert told.startswith("bad: ")
    assert told == f"bad: {why}" if why else "What was wrong" not in told
    assert end == "lock-worker: nothing was sent; 1 dead letter without a valid job left in place"
    assert left(redis_client) == ["bad"]
    assert redis_client.keys() == [DEAD.encode()]


def test_a_letter_that_holds_the_beginning_of_its_message_alone_stays_and_says_so(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    whole = message({"conversation_id": "c-1"}).replace(b"{", b"{" + b" " * 70_000, 1)
    letter(redis_client, "large", raw=whole[:KEPT_BYTES])

    ended = terminal.run("replay", "--all")

    assert ended.returncode == 1
    assert "large: Its message is too large: only the first 65,536 bytes were kept." in ended.stderr
    assert left(redis_client) == ["large"]


def test_of_very_many_that_stay_the_first_are_named_and_the_good_ones_are_sent(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    for number in range(25):
        letter(redis_client, f"bad-{number}", "rejected", raw=b"junk")
    letter(redis_client, "good")

    ended = terminal.run("replay", "--all")

    assert ended.returncode == 0
    assert [job.replay_of for job in sent(redis_client)] == ["good"]
    *named, more, summary = ended.stderr.splitlines()
    assert [line.partition(":")[0] for line in named] == [f"bad-{number}" for number in range(20)]
    assert more == "... and 5 more"
    assert summary.endswith("; 25 dead letters without a valid job left in place")


def test_what_others_wrote_into_the_stream_is_left_alone(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.xadd(DEAD, {"event": "not ours"})
    redis_client.xadd(DEAD, {"neither": "this"})
    letter(redis_client, "good")

    assert terminal.run("replay", "--all").returncode == 0

    assert [job.replay_of for job in sent(redis_client)] == ["good"]
    assert redis_client.xlen(DEAD) == 2


def test_very_many_are_replayed_in_order(terminal: Terminal, redis_client: redis.Redis) -> None:
    names = [f"old-{number}" for number in range(130)]
    for name in names:
        letter(redis_client, name)

    ended = terminal.run("replay", "--all", "--priority", "9")

    jobs = sent(redis_client, f"{QUEUE}\x06\x169")
    assert [job.replay_of for job in jobs] == names
    assert [job.id for job in jobs] == ended.stdout.split()
    assert "130 jobs sent again" in ended.stderr


def test_large_letters_are_read_a_few_at_a_time(server_binary: ServerBinary, tmp_path: Path) -> None:
    # A server that throws out whoever lets more than 14 MiB of answers pile up.
    with (
        RedisServer(server_binary, {"client-output-buffer-limit": "normal 14mb 0 0"}) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        for number in range(100):
            letter(client, f"small-{number}")
        for number in range(60):
            raw = message({"conversation_id": "c-1"}) + b" " * 64_000
            letter(client, f"large-{number}", raw=raw, detail="x" * 260_000)
        terminal = Terminal({"REDIS_URL": server.url}, tmp_path)

        listed = terminal.run("replay", "--list")
        ended = terminal.run("replay", "--all")

        assert len(listed.stdout.splitlines()) == 160
        assert ended.returncode == 0, ended.stderr
        assert len(sent(client)) == 160


def test_two_commands_at_once_send_each_job_once_and_tell_their_own_ids(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    names = {f"old-{number}" for number in range(600)}
    for name in names:
        letter(redis_client, name)

    commands = [terminal.start("replay", "--all") for _ in range(2)]
    told = [command.communicate()[0].decode().split() for command in commands]

    jobs = sent(redis_client)
    assert len(jobs) == len(names)
    assert {job.replay_of for job in jobs} == names
    assert sorted(told[0] + told[1]) == sorted(job.id for job in jobs)


def test_letters_that_are_added_meanwhile_are_for_the_next_time(redis_client: redis.Redis) -> None:
    """Else a job that fails again and again would be replayed for ever."""
    letter(redis_client, "old")

    found = pages(redis_client, DEAD, DeadLetterFilter())
    first = next(found)
    letter(redis_client, "new")

    assert [each.result.job_id for each in [*first, *chain.from_iterable(found)]] == ["old"]


def test_a_letter_that_another_command_was_quicker_with_is_not_reported_as_sent(
    redis_client: redis.Redis, terminal: Terminal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    letter(redis_client, "old")
    found = list(pages(redis_client, DEAD, DeadLetterFilter()))
    redis_client.delete(DEAD)
    monkeypatch.setattr("worker.cli.replay.replay.pages", lambda *_: found)
    settings = Settings(REDIS_URL=SecretStr(terminal.environment["REDIS_URL"]))

    with pytest.raises(Exit):
        replay_letters(settings, DeadLetterFilter(), 0, as_json=False)

    out, err = capsys.readouterr()
    assert (out, err) == ("", "lock-worker: nothing was sent: another command was quicker\n")
    assert sent(redis_client) == []


def test_a_server_that_stops_answering_leaves_open_what_was_sent_and_says_so(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    letter(redis_client, "old")
    redis_client.client_pause(60_000, all=False)
    try:
        ended = terminal.run("replay", "--all")
    finally:
        redis_client.client_unpause()

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "0 jobs sent again; whether the next 1 were is not known." in ended.stderr
    assert "Ask once more" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_refuses_sent_nothing_and_says_so(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "old")
    redis_client.set(QUEUE, "no list")

    ended = terminal.run("replay", "--all")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert " refused: WRONGTYPE " in ended.stderr
    assert ended.stderr.endswith("0 jobs sent again\n")
    assert left(redis_client) == ["old"]


def test_ctrl_c_ends_it_with_an_account_of_what_is_not_known(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "old")
    redis_client.client_pause(60_000, all=False)
    try:
        with terminal.start("replay", "--all", stderr=subprocess.PIPE) as command:
            eventually(lambda: redis_client.info("clients")["blocked_clients"] == 1, "the batch at the server")
            command.send_signal(signal.SIGINT)
            _, said = command.communicate()
    finally:
        redis_client.client_unpause()

    assert command.returncode == 130
    assert said.decode().startswith(
        "lock-worker: interrupted\n0 jobs sent again; whether the next 1 were is not known."
    )


def test_a_reader_who_is_gone_ends_it_with_an_account(terminal: Terminal, redis_client: redis.Redis) -> None:
    for number in range(300):
        letter(redis_client, f"old-{number}")

    with terminal.start("replay", "--all", stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.readline()
        command.stdout.close()
        said = command.stderr.read().decode()

    assert command.returncode == 1
    assert said.startswith("lock-worker: standard output was closed\n")
    jobs = sent(redis_client)
    assert f"{len(jobs)} jobs sent again" in said
    assert len(jobs) + len(left(redis_client)) == 300


def test_as_json_it_is_one_object_that_names_new_and_old_jobs(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "old-1")
    letter(redis_client, "old-2", queue=b"another")
    letter(redis_client, "bad", "rejected", raw=b"junk")

    ended = terminal.run("replay", "old-1", "old-2", "bad", "nobody", "--json")

    assert ended.returncode == 1, "an id has no dead letter"
    told = json.loads(ended.stdout)
    (first,), (second,) = sent(redis_client), sent(redis_client, "another")
    assert told == {
        "sent": [
            {"job_id": first.id, "replay_of": "old-1", "queue": QUEUE},
            {"job_id": second.id, "replay_of": "old-2", "queue": "another"},
        ],
        "left": 1,
        "gone": 0,
        "unsure": 0,
        "missing": ["nobody"],
    }


def test_as_json_it_tells_what_was_sent_also_if_it_ends_early(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "old-1")
    letter(redis_client, "old-2", queue=b"another")
    redis_client.set("another", "no list")

    ended = terminal.run("replay", "--all", "--json")

    assert ended.returncode == 1
    assert " refused: WRONGTYPE " in ended.stderr
    told = json.loads(ended.stdout)
    assert [job["replay_of"] for job in told["sent"]] == ["old-1"]
    assert told["unsure"] == 0
    assert left(redis_client) == ["old-2"]


def test_as_json_nothing_to_replay_is_an_object_too(terminal: Terminal) -> None:
    ended = terminal.run("replay", "--all", "--json")

    assert ended.returncode == 1
    assert json.loads(ended.stdout) == {"sent": [], "left": 0, "gone": 0, "unsure": 0, "missing": []}


@pytest.mark.parametrize("arguments", [["--all"], ["--outcome", "refused"], ["nobody"]], ids=" ".join)
def test_nothing_to_replay_is_said_and_a_status_that_scripts_can_tell(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str]
) -> None:
    if arguments != ["--all"]:
        letter(redis_client, "good")

    ended = terminal.run("replay", *arguments)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"lock-worker: nothing was sent: no dead letter in {DEAD} at 127.0.0.1:" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say which: job ids, --outcome, --error, or --all"),
        (["--all", "job-1"], "give --all, or job ids, --outcome and --error, and not both"),
        (["--outcome", "lost"], "--outcome lost: there are locked, would_lock"),
        (["--error", "lost"], "--error lost: there are invalid_job, undecodable"),
        (["--all", "--priority", "10"], "--priority': Input should be less than or equal to 9"),
    ],
    ids=str,
)
def test_a_wrong_use_is_reported_and_sends_nothing(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str], said: str
) -> None:
    letter(redis_client, "good")

    ended = terminal.run("replay", *arguments)

    assert ended.returncode == 2
    assert said in " ".join(ended.stderr.split())
    assert left(redis_client) == ["good"]


def test_a_name_in_a_letter_does_not_move_the_cursor(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "a\u001b[2J", "rejected", raw=b"junk", detail="\u001b[2J")

    for arguments in (["--list"], ["--all"], ["\u001b[2J"]):
        ended = terminal.run("replay", *arguments)
        assert "\x1b" not in ended.stdout + ended.stderr
