"""Pub/sub listeners that do not read, and the server's options that keep them from taking the memory of jobs."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Oversized
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.conftest import binary_of
from tests.message.messages import made
from tests.system.stage import QUEUE, RESULTS, Stage, eventually

if TYPE_CHECKING:
    from sandbox.server_binaries import ServerBinary

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
JOBS = 400


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    return binary_of(request.param)


def composed_options() -> dict[str, str]:
    """The options of the server in docker-compose.yml."""
    (block,) = re.findall(r"- redis-server\n(.*?)\n    volumes:", COMPOSE.read_text("utf-8"), re.DOTALL)
    words = [word.strip('"') for word in re.findall(r"^ +- (.+)$", block, re.MULTILINE)]
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def test_no_job_is_refused_for_listeners_that_do_not_read(server_binary: ServerBinary, tmp_path: Path) -> None:
    options: dict[str, str | int] = {**composed_options(), "maxmemory": "64mb", "appendonly": "no"}
    with (
        RedisServer(server_binary, options) as server,
        Stage(server.url, tmp_path) as stage,
        ExitStack() as listeners,
    ):
        # given four that subscribe and never read again, and events of 100 kB
        for _ in range(4):
            listener = listeners.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            listener.sendall(f"SUBSCRIBE {RESULTS}\r\n".encode())
        found: Any = stage.redis
        eventually(lambda: dict(found.pubsub_numsub(RESULTS)) == {RESULTS.encode(): 4}, "the listeners")
        stage.api.script = Script(rules=(Rule(then=Oversized(size=100_000)),))
        stage.worker(RESULTS_MAX_BYTES=8 * 1024 * 1024)

        # when more is published than the server has memory for (a refused job raises an error here)
        for number in range(JOBS):
            eventually(lambda: found.llen(QUEUE) < 20, "the worker keeps up")
            stage.push(made([[], {"conversation_id": f"c-{number}"}, {}], headers={"id": f"job-{number}"}))

        # then all jobs were taken in and are done
        stage.wait_idle()
        assert stage.counters()["outcome:locked"] == JOBS
