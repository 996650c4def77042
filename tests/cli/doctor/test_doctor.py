"""``lock-worker doctor`` names each fault that would keep a worker from working, and tells how to mend it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
import redis
import trustme

from sandbox.redis_server import RedisServer, TlsFiles
from tests.cli.registered import register
from tests.cli.terminal import Terminal
from tests.conftest import binary_of
from tests.loaded_programs import PROGRAM
from tests.system.stage import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

AGREED: dict[str, Any] = {
    "LOCK_QUEUE": "moderation.lock", "RESULTS_CHANNEL": "moderation.results", "MAX_ATTEMPTS": 8, "DRY_RUN": False,
}  # fmt: skip


class Api:
    """A port that takes connections, with TLS or without, and answers nothing."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.port = self._listening.getsockname()[1]
        self.received = b""

    @contextmanager
    def listening(self) -> Iterator[Api]:
        thread = Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    secure = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
                    with secure:
                        self.received += secure.recv(1000)
                except OSError:
                    continue


@pytest.fixture
def api() -> Iterator[Api]:
    with Api().listening() as found:
        yield found


@pytest.fixture
def shell(api: Api, redis_server: RedisServer, redis_client: redis.Redis, tmp_path: Path) -> Terminal:
    """A shell whose settings are those of a worker that would work."""
    redis_client.ping()
    environment = {
        "REDIS_URL": redis_server.url, "API_URL": f"http://127.0.0.1:{api.port}", "API_TOKEN": "s3cret-token",
    }  # fmt: skip
    return Terminal(environment, tmp_path)


def found(shell: Terminal, **environment: str) -> tuple[int, dict[str, tuple[str, str, str | None]]]:
    """The exit status, and of each check that is not ok its level, text and mend."""
    ended = shell.run("doctor", "--json", **environment)
    assert ended.stderr == ""
    assert "s3cret" not in ended.stdout
    told: dict[str, Any] = json.loads(ended.stdout)
    assert told["ok"] is (ended.returncode == 0)
    return ended.returncode, {
        each["name"]: (each["level"], each["text"], each["mend"]) for each in told["checks"] if each["level"] != "ok"
    }


def the_problem(shell: Terminal, name: str, **environment: str) -> tuple[str, str]:
    """What is told of the only problem, which ends the command with 1."""
    status, odd = found(shell, **environment)
    problems = [each for each, (level, _, _) in odd.items() if level == "problem"]
    assert (status, problems) == (1, [name])
    _, text, mend = odd[name]
    assert mend
    return text, mend


def the_warning(shell: Terminal, name: str, **environment: str) -> str:
    """What is told by a warning, with which a worker may start."""
    status, odd = found(shell, **environment)
    assert status == 0
    level, text, mend = odd[name]
    assert level == "warning"
    assert mend
    return text


def test_where_all_is_well_each_check_says_so_in_a_line_and_no_request_is_sent(
    api: Api, server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary, {"appendonly": "yes"}) as server:
        environment = {"REDIS_URL": server.url, "API_URL": f"http://127.0.0.1:{api.port}", "API_TOKEN": "t"}
        shell = Terminal(environment, tmp_path)
        ended = shell.run("doctor")

        lines = ended.stdout.splitlines()
        assert (ended.returncode, ended.stderr, lines[-2:]) == (0, "", ["", "All is well."])
        assert len(lines) > 10
        assert all(re.match(r"ok       \w+: .", line) for line in lines[:-2])
        assert "it was not tried" in ended.stdout
        with redis.Redis.from_url(server.url) as client:
            assert client.dbsize() == 0
    assert api.received == b""


def test_on_a_terminal_lines_fit_it(shell: Terminal) -> None:
    status, shown = shell.run_on_a_terminal("doctor", columns=70)
    assert status == 0
    assert max(map(len, shown.splitlines())) <= 70


# --- the settings ---


def test_every_wrong_setting_is_a_problem_of_its_own(shell: Terminal) -> None:
    ended = shell.run("doctor", "--json", API_TOKEN="", MAX_ATTEMPTS="many", CONCURRENCY="0")

    checks = json.loads(ended.stdout)["checks"]
    assert ended.returncode == 1
    assert [each["text"].partition(":")[0] for each in checks if each["name"] == "settings"] == [
        "MAX_ATTEMPTS", "CONCURRENCY", "API_TOKEN",
    ]  # fmt: skip
    assert {each["name"] for each in checks} == {"settings"}  # nothing else can be checked


def test_without_a_token_the_rest_is_checked_all_the_same(shell: Terminal) -> None:
    text, _ = the_problem(shell, "settings", API_TOKEN="")
    assert text == "API_TOKEN: is missing; give it or API_TOKEN_FILE"


def test_a_host_that_only_the_http_client_refuses_is_one_problem_and_no_traceback(shell: Terminal) -> None:
    text, _ = the_problem(shell, "settings", API_URL="https://999.1.1.1", API_TOKEN="t")
    assert text.startswith("API_URL: ")


def test_a_token_file_that_cannot_be_read_is_a_problem(shell: Terminal) -> None:
    text, _ = the_problem(shell, "settings", API_TOKEN="", API_TOKEN_FILE="/no/such/file")
    assert text.startswith("API_TOKEN_FILE: cannot be read")


def test_a_misspelt_name_is_told_with_what_is_meant(shell: Terminal) -> None:
    assert the_warning(shell, "setting_names", MAX_ATEMPTS="3") == (
        "MAX_ATEMPTS: not a setting; MAX_ATTEMPTS may be meant"
    )


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("lease", {"LEASE_SECONDS": "11"}, "hardly longer than ATTEMPT_TIMEOUT_SECONDS (10)"),
        ("lease", {"LEASE_SECONDS": "3600"}, "stand still for 1 h 0 min"),
        ("shutdown", {"SHUTDOWN_SECONDS": "12"}, "leaves a call 9.6 s to end"),
        ("retries", {"MAX_ATTEMPTS": "1000"}, "JOB_MAX_AGE_SECONDS ends a job after 1 d 0 h"),
        ("retries", {"JOB_MAX_AGE_SECONDS": "60"}, "MAX_ATTEMPTS (8) with their waits can take 2 min"),
        ("duplicates", {"DEDUPLICATE_SECONDS": "60"}, "A job may wait 5 min 0 s"),
        ("dry_run", {"DRY_RUN": "true"}, "no job is called"),
        ("dry_run", {"RULES_DRY_RUN": "r-8,r-7"}, "not called: r-7,r-8."),
    ],
)
def test_values_that_fight_are_told(shell: Terminal, name: str, settings: dict[str, str], told: str) -> None:
    assert told in the_warning(shell, name, **settings)


def test_more_jobs_at_once_than_open_files_is_a_problem(shell: Terminal) -> None:
    limited = subprocess.run(
        ["sh", "-c", f"ulimit -n 200 && {PROGRAM} doctor --json"],
        env={**shell.environment, "CONCURRENCY": "500"}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    told = {each["name"]: each for each in json.loads(limited.stdout)["checks"]}
    assert (limited.returncode, told["open_files"]["level"]) == (1, "problem")
    assert "CONCURRENCY: 500 jobs at once" in told["open_files"]["text"]


# --- Redis ---


def test_a_redis_that_is_away_is_a_problem(shell: Terminal) -> None:
    text, mend = the_problem(shell, "redis", REDIS_URL="redis://me:s3cret@127.0.0.1:1/0")
    assert text.startswith("Redis at 127.0.0.1:1/0: Error 111")
    assert "whether the server is up" in mend


def test_a_wrong_password_is_a_problem(shell: Terminal) -> None:
    url = shell.environment["REDIS_URL"].replace("//", "//nobody:s3cret@")
    text, mend = the_problem(shell, "redis", REDIS_URL=url)
    assert "refused" in text
    assert "password" in mend


def own(server: RedisServer) -> dict[str, str]:
    return {"REDIS_URL": server.url}


def test_a_policy_that_deletes_keys_is_a_problem_and_no_append_only_file_a_warning(
    shell: Terminal, server_binary: ServerBinary
) -> None:
    with RedisServer(server_binary, {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as server:
        ended = shell.run("doctor", **own(server))
    assert ended.returncode == 1
    assert re.search(
        r"^problem  redis_server: The maxmemory-policy of Redis is allkeys-lru", ended.stdout, re.MULTILINE
    )
    assert re.search(r"^warning  redis_server: Redis writes no append-only file.* -> Set", ended.stdout, re.MULTILINE)


def test_a_full_server_is_a_problem(shell: Terminal, server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, {"maxmemory": 1}) as server:
        text, _ = the_problem(shell, "redis_memory", **own(server))
    assert "it refuses new jobs" in text


def test_streams_that_the_server_has_no_room_for_are_a_warning(shell: Terminal, server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, {"maxmemory": "100mb"}) as server:
        assert "the results are kept to 50 MiB" in the_warning(shell, "redis_streams", **own(server))


def test_a_replica_is_a_problem(shell: Terminal, server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, {"replicaof": "127.0.0.1 1"}) as server:
        text, mend = the_problem(shell, "redis_server", **own(server))
    assert "is a replica" in text
    assert "the primary" in mend


def test_a_disk_that_cannot_be_written_to_is_a_problem(shell: Terminal, server_binary: ServerBinary) -> None:
    options = {"enable-protected-configs": "yes", "save": "3600 1"}
    with RedisServer(server_binary, options) as server, redis.Redis.from_url(server.url) as client:
        client.config_set("dir", "/proc")
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that failed")
        status, odd = found(shell, **own(server))
    assert status == 1
    assert "snapshot of Redis failed" in odd["redis_disk"][1]
    assert "MISCONF" in odd["redis_server"][1]


def test_a_permission_that_the_user_lacks_is_named_with_the_rule_that_gives_it(
    shell: Terminal, redis_client: redis.Redis
) -> None:
    client: Any = redis_client
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">s3cret", "~*", "&*", "+@all", "-zadd")
    try:
        url = shell.environment["REDIS_URL"].replace("//", "//limited:s3cret@")
        text, mend = the_problem(shell, "redis_permissions", REDIS_URL=url)
    finally:
        client.execute_command("ACL", "DELUSER", "limited")
    assert text.startswith("The user in REDIS_URL may not run ZADD on lw:1:moderation.lock:leases, ")
    assert mend.startswith("Give it +zadd ")
    assert redis_client.dbsize() == 0


def test_redis_with_a_certificate_of_an_unknown_authority_is_a_problem(shell: Terminal, tmp_path: Path) -> None:
    authority, files = trustme.CA(), TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(files.certificate)
    certificate.private_key_pem.write_to_path(files.key)
    with RedisServer(binary_of("redis"), tls=files) as server:
        text, mend = the_problem(shell, "redis", **own(server))
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        status, _ = found(shell, REDIS_CA_FILE=str(tmp_path / "ca.pem"), **own(server))
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert "REDIS_CA_FILE" in mend
    assert status == 0


def test_another_database_than_the_first_is_a_warning(shell: Terminal) -> None:
    told = the_warning(shell, "redis_database", REDIS_URL=shell.environment["REDIS_URL"].replace("/0", "/3"))
    assert "names the database 3, and pub/sub knows no databases" in told


def test_a_certificate_of_redis_that_expires_soon_is_a_warning_and_a_client_certificate_that_lacks_a_problem(
    shell: Terminal, tmp_path: Path
) -> None:
    authority, files = trustme.CA(), TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    soon = datetime.now(UTC) + timedelta(days=5)
    certificate = authority.issue_cert("127.0.0.1", not_after=soon)
    certificate.cert_chain_pems[0].write_to_path(files.certificate)
    certificate.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusted = {"REDIS_CA_FILE": str(tmp_path / "ca.pem")}
    with RedisServer(binary_of("redis"), {"tls-ca-cert-file": trusted["REDIS_CA_FILE"]}, tls=files) as server:
        told = the_warning(shell, "redis_tls", **own(server), **trusted)
        with redis.Redis.from_url(f"{server.url}?ssl_cert_reqs=none") as client:
            client.config_set("tls-auth-clients", "yes")
        _, mend = the_problem(shell, "redis", **own(server), **trusted)
        shown = {"REDIS_CERT_FILE": str(files.certificate), "REDIS_KEY_FILE": str(files.key)}
        status, _ = found(shell, **own(server), **trusted, **shown)
    assert "expires in 5 days" in told
    assert "REDIS_CERT_FILE" in mend
    assert status == 0


def test_a_password_in_a_file_that_redis_refuses_is_a_problem_that_names_the_file(
    shell: Terminal, server_binary: ServerBinary, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret")
    with RedisServer(server_binary, {"requirepass": "another"}) as server:
        chosen = {"REDIS_URL": f"redis://127.0.0.1:{server.port}/0", "REDIS_PASSWORD_FILE": str(file)}
        text, mend = the_problem(shell, "redis", **chosen)
        file.write_text("another")
        ended = shell.run("doctor", **chosen)
    assert str(file) in text
    assert "read again for each connection" in mend
    assert f"redis_password: Redis accepts the password in REDIS_PASSWORD_FILE ({file})" in ended.stdout
    assert ended.returncode == 0


# --- the API ---


def test_a_port_of_the_api_that_is_closed_is_a_problem(shell: Terminal) -> None:
    text, mend = the_problem(shell, "api_connection", API_URL="http://127.0.0.1:1")
    assert text == "No connection to the API at 127.0.0.1 port 1: 127.0.0.1: Connection refused."
    assert "API_URL" in mend


def test_a_name_of_the_api_that_is_not_resolved_is_a_problem(shell: Terminal) -> None:
    text, _ = the_problem(shell, "api_name", API_URL="https://nonexistent.invalid")
    assert text.startswith("The name of the API, nonexistent.invalid, is not resolved: ")


def server_tls(authority: trustme.CA, name: str, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


def test_an_api_with_a_certificate_of_an_unknown_authority_or_for_another_name_is_a_problem(
    shell: Terminal, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusted = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}

    with Api(server_tls(authority, "localhost")).listening() as api:
        unknown, mend = the_problem(shell, "api_tls", API_URL=f"https://localhost:{api.port}")
        another, _ = the_problem(shell, "api_tls", API_URL=f"https://127.0.0.1:{api.port}", **trusted)
        status, _ = found(shell, API_URL=f"https://localhost:{api.port}", **trusted)

    assert "is not trusted: " in unknown
    assert "SSL_CERT_FILE" in mend
    assert "IP address mismatch" in another
    assert status == 0


def test_a_certificate_that_expires_soon_is_a_warning(shell: Terminal, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    soon = datetime.now(UTC) + timedelta(days=5)

    with Api(server_tls(authority, "localhost", not_after=soon)).listening() as api:
        told = the_warning(
            shell, "api_tls", API_URL=f"https://localhost:{api.port}", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )

    assert "expires in 5 days" in told


def test_a_port_that_does_not_speak_tls_is_a_problem(shell: Terminal, redis_server: RedisServer) -> None:
    text, _ = the_problem(shell, "api_tls", API_URL=f"https://127.0.0.1:{redis_server.port}")
    assert text.startswith("TLS with 127.0.0.1 failed: ")


# --- the fleet ---


def test_pods_that_are_set_differently_are_named_with_their_values(shell: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "one", **AGREED)
    register(redis_client, "two", **{**AGREED, "MAX_ATTEMPTS": 3})

    text, mend = the_problem(shell, "fleet_settings")

    assert text == "MAX_ATTEMPTS must be the same for all workers of this queue, and is not: 8 (here, one); 3 (two)."
    assert "mixed until the last old pod is gone" in mend


def test_pods_that_agree_with_these_settings_are_no_problem(shell: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "one", **AGREED)
    assert found(shell)[0] == 0
    text, _ = the_problem(shell, "fleet_settings", RESULTS_CHANNEL="elsewhere")
    assert "elsewhere (here); moderation.results (one)" in text


def test_a_group_that_is_about_to_lose_events_is_a_problem(shell: Terminal, redis_client: redis.Redis) -> None:
    for _ in range(100):
        redis_client.xadd("moderation.results", {"event": "{}"})
    redis_client.xgroup_create("moderation.results", "billing", id="0")

    text, _ = the_problem(shell, "fleet_results_unread", RESULTS_MAXLEN="100")
    assert "The consumer group billing is about to lose events" in text


def test_what_another_program_named_as_the_worker_does_is_a_problem(shell: Terminal, redis_client: redis.Redis) -> None:
    redis_client.set("lw:1:moderation.lock:delayed", "no zset")
    assert "holds a string" in the_problem(shell, "fleet_key_overwritten")[0]
