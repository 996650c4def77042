"""``lock-worker ping``: 0 if this pod's worker is well, 1 if not, whatever the reason, and one line that says which."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from settings import Settings
from tests.cli.terminal import Terminal, python
from worker.cli.ping import health_port
from worker.observe.health import HealthServer
from worker.observe.listening import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sandbox.redis_server import RedisServer


class Pod:
    """A health port, and what it is told of its worker."""

    def __init__(self, host: str) -> None:
        self.reasons: list[str] = []
        self.held_back_by: list[str] = []
        listening = listen(host, 0)
        self.port = int(listening[0].getsockname()[1])
        self.server = HealthServer(
            listening, reasons=lambda: self.reasons, held_back_by=lambda: self.held_back_by, refresh=lambda: None
        )


@pytest.fixture(params=["::", "0.0.0.0", "127.0.0.1"])  # noqa: S104 - each host that a worker may listen on
async def pod(request: pytest.FixtureRequest) -> AsyncIterator[Pod]:
    found = Pod(request.param)
    await found.server.start()
    yield found
    await found.server.stop()


@pytest.fixture
def shell(tmp_path: Path) -> Terminal:
    return Terminal({"REDIS_URL": "redis://127.0.0.1:1/0"}, tmp_path)


async def run(shell: Terminal, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command while the loop, which is the worker's, goes on."""
    import asyncio  # noqa: PLC0415 - of this helper alone

    ended = await asyncio.to_thread(shell.run, "ping", *arguments, **environment)
    return ended.returncode, ended.stdout, ended.stderr


async def test_a_worker_that_is_well_is_found_on_whatever_host_it_listens(
    request: pytest.FixtureRequest, pod: Pod, shell: Terminal
) -> None:
    environment = {"HEALTH_HOST": request.node.callspec.params["pod"], "HEALTH_PORT": str(pod.port)}

    for arguments, path in (((), "livez"), (("--ready",), "readyz")):
        status, told, _ = await run(shell, *arguments, **environment)
        assert (status, told) == (0, f"ok: http://127.0.0.1:{pod.port}/{path}\n")


async def test_a_worker_that_cannot_work_is_alive_and_not_ready(pod: Pod, shell: Terminal) -> None:
    pod.reasons = ["redis_unreachable"]
    environment = {"HEALTH_PORT": str(pod.port)}

    assert (await run(shell, **environment))[0] == 0
    status, told, problem = await run(shell, "--ready", **environment)
    asked = f"http://127.0.0.1:{pod.port}/readyz"
    assert (status, told) == (1, "")
    assert problem == f"lock-worker: {asked} answers 503 (redis_unreachable)\n"
    status, told, problem = await run(shell, "--ready", "--json", **environment)
    assert (status, problem) == (1, "")
    assert json.loads(told) == {
        "ok": False, "asked": asked, "status": 503, "reasons": ["redis_unreachable"],
        "problem": f"{asked} answers 503 (redis_unreachable)",
    }  # fmt: skip


async def test_what_holds_the_whole_fleet_back_is_told_and_is_well(pod: Pod, shell: Terminal) -> None:
    pod.held_back_by = ["paused"]

    status, told, _ = await run(shell, "--ready", HEALTH_PORT=str(pod.port))

    assert (status, told.rstrip().endswith("/readyz (paused)")) == (0, True)


def one_line(shell: Terminal, **environment: str) -> str:
    """What is said of a ping that fails."""
    ended = shell.run("ping", **environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    return line.removeprefix("lock-worker: ")


def test_a_port_where_nothing_listens_is_one_line(shell: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    assert one_line(shell, HEALTH_PORT=str(port)) == f"http://127.0.0.1:{port}/livez: Connection refused"


@pytest.fixture
def stranger() -> Iterator[int]:
    """A port where something listens that does not speak HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"\x1b[31mSSH-2.0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_something_else_on_the_port_is_one_line(shell: Terminal, stranger: int) -> None:
    told = one_line(shell, HEALTH_HOST="127.0.0.1", HEALTH_PORT=str(stranger))
    assert told.endswith("/livez: something answers that does not speak HTTP")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"HEALTH_PORT": "eighty"}, "HEALTH_PORT: must be a whole number from 0 to 65535"),
        ({"HEALTH_PORT": "70000"}, "HEALTH_PORT: must be a whole number from 0 to 65535"),
        ({"HEALTH_PORT": "0", "REDIS_URL": "http://me:hunter2@x", "CONCURRENCY": "0"}, "the settings are wrong: REDIS"),
        ({"HEALTH_PORT": "0"}, "Redis at 127.0.0.1:1/0: Error 111"),
        ({"HEALTH_HOST": "no such host", "HEALTH_PORT": "1"}, "http://no such host:1/livez: "),
    ],
)
def test_what_is_wrong_is_one_line_without_a_secret(shell: Terminal, environment: dict[str, str], told: str) -> None:
    line = one_line(shell, **environment)
    assert line.startswith(told)
    assert "hunter2" not in line


def test_a_pod_without_a_health_port_asks_redis(shell: Terminal, redis_server: RedisServer) -> None:
    ended = shell.run("ping", HEALTH_PORT="0", REDIS_URL=redis_server.url)
    assert (ended.returncode, ended.stdout) == (0, f"ok: Redis at {redis_server.url.partition('://')[2]}\n")


def test_it_is_quick_because_the_health_port_needs_nothing_slow() -> None:
    code = "import json, sys, worker.cli.ping.command; print(json.dumps(list(sys.modules)))"
    loaded: Any = json.loads(python(code))
    assert {"settings", "redis", "celery", "pydantic", "asyncio", "http.client", "ssl"} & set(loaded) == set()


def test_its_own_defaults_are_those_of_the_settings() -> None:
    fields = Settings.model_fields
    assert (fields["HEALTH_HOST"].default, fields["HEALTH_PORT"].default) == (
        health_port.DEFAULT_HOST,
        health_port.DEFAULT_PORT,
    )
