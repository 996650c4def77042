"""A Redis that asks for a client certificate: with the right one all works, and else a sentence tells what is wrong."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from sandbox.redis_server import RedisServer, RedisServerError, TlsFiles
from tests.cli.terminal import Terminal
from tests.conftest import binary_of
from tests.system.stage import Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "lock-1@test"
_PAST = {"not_before": dt.datetime(2020, 1, 1), "not_after": dt.datetime(2021, 1, 1)}  # noqa: DTZ001 - trustme's


def _issue(authority: trustme.CA, folder: Path, name: str, host: str, **times: Any) -> TlsFiles:
    files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key")
    issued = authority.issue_cert(host, **times)
    issued.cert_chain_pems[0].write_to_path(files.certificate)
    issued.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server that speaks TLS only and asks for certificates. The Valkey of the wheel is built without TLS."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    server_files = _issue(authority, folder, "server", "127.0.0.1")
    client_files = _issue(authority, folder, "client", "worker")
    _issue(authority, folder, "expired", "worker", **_PAST)
    _issue(authority, folder, "expired-server", "127.0.0.1", **_PAST)
    _issue(trustme.CA(), folder, "stranger", "worker")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    try:
        server = RedisServer(
            binary_of("redis"), {"tls-ca-cert-file": str(folder / "ca.pem")}, tls=server_files
        ).__enter__()
    except RedisServerError as error:
        if "Failed finding TLS support" not in str(error):
            raise
        pytest.skip("this Redis is built without TLS")
    query = f"ssl_ca_certs={folder / 'ca.pem'}&ssl_certfile={client_files.certificate}&ssl_keyfile={client_files.key}"
    with closing(server), Stage(f"{server.url}?ssl_cert_reqs=required&{query}", folder) as found:
        found.redis.config_set("tls-auth-clients", "yes")
        yield found


def settings(stage: Stage, name: str, host: str = "127.0.0.1") -> dict[str, str]:
    port = stage.redis.connection_pool.connection_kwargs["port"]
    shown = {"REDIS_CERT_FILE": f"{name}.pem", "REDIS_KEY_FILE": f"{name}.key"} if name else {}
    files = {"REDIS_CA_FILE": "ca.pem", **shown}
    return {
        "REDIS_URL": f"rediss://{host}:{port}/0",
        **{setting: str(stage.folder / file) for setting, file in files.items()},
    }


def test_jobs_remote_control_and_commands_show_the_certificate(stage: Stage) -> None:
    worker = stage.worker("-E", "-n", NAME, **settings(stage, "client"))

    assert stage.outcome_of(stage.send()) == "locked"
    assert stage.producer.control.inspect(destination=[NAME], timeout=10).ping() == {NAME: {"ok": "pong"}}
    for command in ("status", "adopt"):
        ended = Terminal(settings(stage, "client"), stage.folder).run(command)
        assert ended.returncode == 0, ended.stderr
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        # Where the worker writes before it reads, it learns of a closed connection alone.
        ("", ("asks for a client certificate", "closed the TLS connection without a reason")),
        ("expired", ("client certificate has expired", "closed the TLS connection without a reason")),
        ("stranger", ("does not accept the worker's client certificate", "closed the TLS connection without a reason")),
    ],
    ids=["none", "expired", "of another authority"],
)
def test_a_worker_that_redis_refuses_says_why_and_waits(stage: Stage, name: str, told: tuple[str, ...]) -> None:
    worker = stage.start(**settings(stage, name))

    def explained() -> list[str]:
        lines = [*worker.lines("redis_unavailable"), *worker.lines("redis_still_unavailable")]
        return [line["advice"] for line in lines if any(words in line.get("problem", "") for words in told)]

    assert eventually(explained, f"a line with one of {told}")
    assert worker.process.poll() is None
    worker.close()


def _let_the_server_show(stage: Stage, name: str) -> None:
    files = [str(stage.folder / f"{name}.{end}") for end in ("pem", "key")]
    stage.redis.config_set("tls-cert-file", files[0], "tls-key-file", files[1])


def test_a_worker_waits_out_a_certificate_of_the_server_that_has_expired(stage: Stage) -> None:
    worker = stage.worker(**settings(stage, "client"))
    _let_the_server_show(stage, "expired-server")
    for kind in ("normal", "pubsub"):
        stage.redis.client_kill_filter(_type=kind, skipme=True)

    eventually(lambda: "The certificate of Redis has expired" in worker.log, "a line that tells why")
    _let_the_server_show(stage, "server")

    assert stage.outcome_of(stage.send()) == "locked"
    assert worker.stop() == 0


def test_files_that_are_replaced_are_read_again_and_a_command_says_what_is_wrong_with_them(stage: Stage) -> None:
    chosen = settings(stage, "client", host="localhost")
    ended = Terminal(chosen, stage.folder).run("status")
    assert ended.returncode == 1
    assert "Let REDIS_URL name a host that stands in the certificate" in ended.stderr

    issued = {end: (stage.folder / f"client.{end}").read_bytes() for end in ("pem", "key")}
    for end, content in issued.items():
        (stage.folder / f"rotated.{end}").write_bytes(content)
    worker = stage.worker(**settings(stage, "rotated"))
    (stage.folder / "rotated.key").unlink()
    for kind in ("normal", "pubsub"):
        stage.redis.client_kill_filter(_type=kind, skipme=True)
    eventually(lambda: "REDIS_KEY_FILE names is gone" in worker.log, "a line that tells which file")
    (stage.folder / "rotated.key").write_bytes(issued["key"])

    assert stage.outcome_of(stage.send()) == "locked"
    assert worker.stop() == 0
