"""``lock-worker exporter`` shows the fleet to Prometheus with no worker running."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import redis
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sandbox.redis_server import RedisServer
from tests.cli.terminal import Terminal, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from prometheus_client import Metric

    from sandbox.server_binaries import ServerBinary


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def exporter(terminal: Terminal, port: int, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    where = {"HEALTH_HOST": "127.0.0.1", "HEALTH_PORT": str(port)}
    process = terminal.start("exporter", *options, stderr=subprocess.PIPE, **where, **environment)
    try:
        eventually(lambda: status_of(port, "/livez") == 200, "an exporter that answers")
        yield process
    finally:
        process.kill()
        process.communicate()


def status_of(port: int, path: str) -> int:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code
    except httpx.TransportError:
        return 0


def scraped(
    port: int,
    parse: Callable[[str], Iterable[Metric]] = parse_text,
    headers: Mapping[str, str] | None = None,
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers, trust_env=False)
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(answer.text)
        for sample in family.samples
    }


def ready_jobs(port: int) -> float:
    return scraped(port)["lock_worker_queue_jobs", frozenset({("state", "ready")})]


def fleet_gauges(port: int) -> set[str]:
    of_the_process = {"lock_worker_redis_up", "lock_worker_build_info"}
    return {name for name, _ in scraped(port) if name.startswith("lock_worker_")} - of_the_process


def test_it_shows_what_waits_though_no_worker_ever_ran(
    terminal: Terminal, redis_client: redis.Redis, port: int
) -> None:
    redis_client.lpush("moderation.lock", "a", "b")

    with exporter(terminal, port):
        eventually(lambda: ready_jobs(port) == 2, "two jobs that are ready")
        found = scraped(port)

    assert found["lock_worker_queue_workable", frozenset()] == 2
    assert found["lock_worker_workers", frozenset()] == 0
    assert found["lock_worker_redis_up", frozenset()] == 1
    assert ("process_cpu_seconds_total", frozenset()) in found
    assert not any("jobs_finished" in name for name, _ in found)


def test_it_speaks_openmetrics_and_gzip_to_who_asks_for_it(terminal: Terminal, port: int) -> None:
    openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    with exporter(terminal, port):
        assert scraped(port, parse_openmetrics, openmetrics).keys() == scraped(port).keys()
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=openmetrics, trust_env=False)
        plain = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept-Encoding": "identity"}, trust_env=False)

    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Content-Type"].startswith("text/plain")


def test_it_is_not_ready_while_redis_is_away_and_goes_on(tmp_path: Path, port: int) -> None:
    with exporter(Terminal({"REDIS_URL": "redis://127.0.0.1:1/0"}, tmp_path), port):
        assert status_of(port, "/readyz") == 503
        assert scraped(port)["lock_worker_redis_up", frozenset()] == 0


def test_it_shows_nothing_of_a_fleet_that_it_lost_sight_of_until_it_sees_it_again(
    server_binary: ServerBinary, tmp_path: Path, port: int
) -> None:
    with RedisServer(server_binary) as server, closing(redis.Redis.from_url(server.url)) as client:
        client.lpush("moderation.lock", "a", "b")
        with exporter(Terminal({"REDIS_URL": server.url}, tmp_path), port):
            eventually(lambda: ready_jobs(port) == 2, "two jobs that are ready")
            server.kill()
            eventually(lambda: fleet_gauges(port) == set(), "no gauge of the fleet")
            assert scraped(port)["lock_worker_redis_up", frozenset()] == 0

            server.start()
            client.lpush("moderation.lock", "a")
            waiting = client.llen("moderation.lock")
            eventually(
                lambda: bool(fleet_gauges(port)) and ready_jobs(port) == waiting,
                "the gauges of the fleet, as it is now",
            )


@pytest.mark.parametrize(("options", "log_format"), [([], "json"), (["--json"], "console")])
def test_it_ends_on_sigterm_and_every_line_of_its_log_is_json(
    terminal: Terminal, port: int, options: list[str], log_format: str
) -> None:
    with exporter(terminal, port, *options, LOG_FORMAT=log_format) as process:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)

    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["exporter_started", "exporter_stopped"]


def test_a_port_in_use_ends_the_start_with_a_sentence(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = terminal.run("exporter", HEALTH_HOST="127.0.0.1", HEALTH_PORT=str(taken.getsockname()[1]))

    assert ended.returncode == 1
    assert "HEALTH_PORT: cannot listen on 127.0.0.1 port" in ended.stderr


def test_no_port_at_all_is_wrong_use(terminal: Terminal) -> None:
    ended = terminal.run("exporter", HEALTH_PORT="0")

    assert ended.returncode == 2
    assert "HEALTH_PORT: 0 is for none, and the exporter needs one" in ended.stderr
