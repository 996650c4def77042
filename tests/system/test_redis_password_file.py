"""The password for Redis in a file: each connection reads it, so a rotation needs no restart, and no log has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.redis_server import RedisServer
from tests.cli.terminal import Terminal
from tests.system.stage import Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

NAME = "lock-1@test"
OLD, NEW, WRONG = "the first pässword: @/%", "the-second-password", "the-wrong-password"
_RULES = ("~*", "&*", "+@all", "-client|setinfo")


@pytest.fixture
def stage(server_binary: ServerBinary, tmp_path: Path) -> Iterator[Stage]:
    """A server whose user ``app`` has the old password, and may not tell its client's name (CLIENT SETINFO)."""
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path) as found:
        rules = _RULES if not server_binary.version.startswith("7.0.") else _RULES[:-1]
        found.redis.execute_command("ACL", "SETUSER", "app", "on", f">{OLD}", *rules)
        yield found


def settings(stage: Stage, password: str) -> dict[str, str]:
    """The settings of a worker, with this password in its file."""
    file = stage.folder / "password"
    file.write_text(f"{password}\n", "utf-8")
    return {"REDIS_URL": stage.redis_url.replace("//", "//app@"), "REDIS_PASSWORD_FILE": str(file)}


def cut_connections_of_the_user(stage: Stage) -> None:
    for kind in ("normal", "pubsub"):
        stage.redis.client_kill_filter(_type=kind, user="app", skipme=True)


def assert_no_secret_is_in(text: str) -> None:
    assert [secret for secret in (OLD, NEW, WRONG) if secret in text] == []


def test_a_password_is_rotated_without_a_restart_for_jobs_remote_control_and_commands(stage: Stage) -> None:
    worker = stage.worker("-E", "-n", NAME, **settings(stage, OLD))
    assert stage.outcome_of(stage.send()) == "locked"

    chosen = settings(stage, NEW)
    stage.redis.execute_command("ACL", "SETUSER", "app", "resetpass", f">{NEW}")
    cut_connections_of_the_user(stage)

    assert stage.outcome_of(stage.send()) == "locked"
    inspect = stage.producer.control.inspect(destination=[NAME], timeout=10)
    eventually(lambda: inspect.ping() == {NAME: {"ok": "pong"}}, "an answer after the rotation")
    assert_no_secret_is_in(str(inspect.conf()) + str(inspect.stats()))
    shell = Terminal(chosen, stage.folder)
    for command in (("status",), ("enqueue", "c-2"), ("adopt",)):
        ended = shell.run(*command)
        assert ended.returncode == 0, (command, ended.stderr)
    assert worker.stop() == 0
    assert_no_secret_is_in(worker.log)


def the_log_tells(worker: WorkerProcess, *words: str) -> None:
    eventually(lambda: all(word in worker.log for word in words), f"a line with {words}")


def test_a_start_waits_while_the_file_has_a_wrong_password(stage: Stage) -> None:
    job = stage.send()
    worker = stage.start(**settings(stage, WRONG))
    the_log_tells(worker, "the password is that in", str(stage.folder / "password"), "read again for each connection")
    assert worker.process.poll() is None

    settings(stage, OLD)
    worker.wait_ready()
    assert stage.outcome_of(job) == "locked"
    assert_no_secret_is_in(worker.log)


def test_a_file_that_is_emptied_and_then_wrong_is_named_and_the_worker_goes_on_once_it_is_right(stage: Stage) -> None:
    worker = stage.worker(**settings(stage, OLD))

    settings(stage, "")
    cut_connections_of_the_user(stage)
    the_log_tells(worker, "REDIS_PASSWORD_FILE: ", "password is empty", "holds no password that can be used")
    settings(stage, WRONG)
    again = eventually(
        lambda: [line for line in worker.lines("redis_still_unavailable") if "is that in" in line["error"]],
        "a line that tells that the password is wrong",
    )
    assert "does not accept the password in the file" in again[0]["problem"]
    settings(stage, OLD)

    assert stage.outcome_of(stage.send()) == "locked"
    assert worker.stop() == 0
    assert_no_secret_is_in(worker.log)


def test_a_command_names_the_file_of_a_password_that_is_refused_or_missing(stage: Stage) -> None:
    ended = Terminal(settings(stage, WRONG), stage.folder).run("status")
    assert ended.returncode == 1
    assert f"(the password is that in {stage.folder / 'password'})" in ended.stderr
    assert "Put the password that is valid now into that file" in ended.stderr

    ended = Terminal(settings(stage, ""), stage.folder).run("status")
    assert ended.returncode != 0
    assert "REDIS_PASSWORD_FILE: is empty" in ended.stderr
    assert_no_secret_is_in(ended.stderr)
