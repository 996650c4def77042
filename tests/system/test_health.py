"""What an orchestrator and Prometheus see of a worker."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest

from sandbox.faults import Respond
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tasks.outcome import OutcomeName
from tests.system.stage import QUEUE, Stage, WorkerProcess, eventually
from worker.observe.page_server import MAX_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def ask(port: int, path: str) -> tuple[int, Any]:
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
    return answer.status_code, answer.json()


def is_ready(port: int) -> bool:
    return ask(port, "/readyz") == (200, {"status": "ready"})


def looks_at_the_fleet(stage: Stage) -> int:
    return int(stage.redis.info("commandstats").get("cmdstat_xinfo|groups", {"calls": 0})["calls"])


def test_a_worker_that_takes_jobs_is_alive_and_ready(stage: Stage, port: int) -> None:
    stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)

    assert ask(port, "/livez") == (200, {"status": "alive"})
    eventually(lambda: is_ready(port), "a worker that is ready")


def test_each_retry_is_one_line_and_one_count_wherever_the_job_waits(stage: Stage, port: int) -> None:
    stage.api.script = Script(
        rules=(
            Rule(id="in-slot", first_calls=1, then=Respond(status=500)),
            Rule(id="in-redis", first_calls=1, then=Respond(status=502, headers={"Retry-After": "2"})),
        )
    )
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    for number in range(30):  # calls succeed, so that a failure is its job's own and may wait in the slot
        stage.send(f"c-{number}")
    stage.wait_events(30)
    jobs = {
        stage.send("in-slot"): ("server_error", 500, "slot"),
        stage.send("in-redis"): ("server_error", 502, "redis"),
    }

    events = stage.wait_events(32, seconds=30)

    assert {event["data"]["attempts"] for event in events if event["data"]["job_id"] in jobs} == {2}
    lines = {line["job"]: line for line in worker.lines("job_retry")}
    assert len(worker.lines("job_retry")) == len(lines)
    assert {job: (line["reason"], line["status"], line["where"]) for job, line in lines.items()} == jobs
    assert {(line["attempt"], line["level"], line["wait"] <= 3) for line in lines.values()} == {(1, "info", True)}
    assert worker.lines("job_delayed") == []
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'lock_worker_job_retries_total{reason="server_error"} 2.0' in metrics
    assert 'lock_worker_job_retries_total{reason="token_refused"} 0.0' in metrics


def test_metrics_count_what_came_of_the_jobs(stage: Stage, port: int) -> None:
    stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    stage.send("c-1")
    stage.send("c-2", fields={"dry_run": True})
    stage.push(b"junk")
    stage.wait_events(3)
    stage.wait_idle()

    lines = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines()

    ended = dict.fromkeys(("locked", "would_lock", "rejected"), 1.0)
    assert {line for line in lines if line.startswith("lock_worker_jobs_finished_total")} == {
        f'lock_worker_jobs_finished_total{{outcome="{outcome}"}} {ended.get(outcome, 0.0)}'
        for outcome in get_args(OutcomeName)
    }
    assert "lock_worker_job_seconds_count 3.0" in lines
    assert "lock_worker_jobs_in_flight 0.0" in lines


def test_a_worker_whose_token_is_refused_is_alive_but_not_ready(stage: Stage, port: int) -> None:
    stage.api.token = "another-one"
    stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    stage.send()

    eventually(lambda: ask(port, "/readyz") == (503, {"status": "not ready", "reasons": ["token_refused"]}), "a no")
    assert ask(port, "/livez")[0] == 200


def test_a_worker_whose_api_is_down_stays_ready_and_can_be_stopped_with_its_jobs_kept(stage: Stage, port: int) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=500)),))
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port, BREAKER_FAILURES=3)
    for number in range(3):
        stage.send(f"c-{number}")

    down = (200, {"status": "ready", "held_back_by": ["api_down"]})
    eventually(lambda: ask(port, "/readyz") == down, "a worker that is held back")

    assert worker.stop() == 0
    assert stage.redis.zcard(stage.keys.leases) == 0
    assert stage.jobs_left() == 3


def test_a_worker_whose_queues_were_all_cancelled_is_ready_and_says_why_it_takes_no_jobs(
    stage: Stage, port: int
) -> None:
    stage.worker("-n", "lock-1@test", HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    eventually(lambda: is_ready(port), "a worker that is ready")
    control = stage.producer.control

    control.cancel_consumer(QUEUE, destination=["lock-1@test"], reply=True, timeout=10)

    cancelled = (200, {"status": "ready", "held_back_by": ["queues_cancelled"]})
    eventually(lambda: ask(port, "/readyz") == cancelled, "the reason")
    # A worker that Redis does not answer is not ready after 5 s, which is less than three looks at the fleet take.
    for _ in range(3):
        before = looks_at_the_fleet(stage)
        eventually(lambda: looks_at_the_fleet(stage) > before, "a look at the fleet")  # noqa: B023 - called here
        assert ask(port, "/readyz") == cancelled
    control.add_consumer(QUEUE, destination=["lock-1@test"], reply=True, timeout=10)
    eventually(lambda: is_ready(port), "a worker that is ready")


def test_a_worker_without_its_redis_is_alive_but_not_ready_until_it_is_back(
    server_binary: ServerBinary, tmp_path: Path, port: int
) -> None:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path) as stage:
        stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
        eventually(lambda: is_ready(port), "a worker that is ready")

        server.stop()

        eventually(lambda: "redis_unreachable" in str(ask(port, "/readyz")), "a no")
        assert ask(port, "/livez")[0] == 200
        server.start()
        eventually(lambda: is_ready(port), "a worker that is ready again")


def test_a_health_port_in_use_stops_the_start_with_a_sentence_that_names_the_setting(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        worker = stage.start(HEALTH_HOST="127.0.0.1", HEALTH_PORT=taken)

        assert worker.process.wait(20) != 0
    assert "HEALTH_PORT: cannot listen on" in worker.log
    assert "Traceback" not in worker.log


def test_a_client_that_never_finishes_its_request_holds_up_no_shutdown(stage: Stage, port: int) -> None:
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /livez HTTP/1.1\r\nHost: worker\r\nContent-Length: 1000\r\n\r\nand no more")
        assert client.recv(1000).startswith(b"HTTP/1.1 405 ")

        began = time.monotonic()
        assert worker.stop() == 0

    assert time.monotonic() - began < 5, "it waited for the rest"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_without_a_setting_it_answers_on_ipv4_and_on_ipv6(stage: Stage, port: int, host: str) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    stage.worker(HEALTH_PORT=port)

    with socket.create_connection((host, port)) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def descriptors(worker: WorkerProcess) -> int:
    return len(list(Path(f"/proc/{worker.process.pid}/fd").iterdir()))


@contextmanager
def strangers(port: int, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many clients that send something and then neither send, read nor close."""
    with ExitStack() as clients:
        found = []
        for _ in range(count):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            with suppress(ConnectionError):  # its place was given away already
                client.sendall(sent)
            found.append(client)
        yield found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /liv",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        Random(7).randbytes(60_000),
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["nothing", "half a request", "a request whose answer they never read", "nonsense", "half a body"],
)
def test_strangers_use_up_neither_descriptors_nor_the_answers_of_others_nor_the_jobs(
    stage: Stage, port: int, sent: bytes
) -> None:
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    stage.event_of(stage.send("before"))
    quiet = descriptors(worker)

    with strangers(port, 400, sent):
        for number in range(20):
            assert ask(port, "/livez") == (200, {"status": "alive"})
            stage.send(f"c-{number}")
        assert is_ready(port)
        assert {event["data"]["outcome"] for event in stage.wait_events(21)} == {"locked"}
        assert descriptors(worker) <= quiet + MAX_CONNECTIONS + 20, "those of the calls included"

    assert len(worker.lines("health_requests_refused")) <= 1
    assert len(worker.log) < 100 * 1024


def test_nonsense_is_a_line_of_log_and_no_more(stage: Stage, port: int) -> None:
    worker = stage.worker(HEALTH_HOST="127.0.0.1", HEALTH_PORT=port)
    before = len(worker.log)

    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"\x00\x1b[2J" * 12_000)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1000).startswith(b"HTTP/1.1 431 ")

    assert ask(port, "/livez")[0] == 200
    (line,) = worker.lines("health_requests_refused")
    assert (line["level"], line["requests"]) == ("warning", {"too_large": 1})
    assert len(worker.log) - before < 1000
