"""How a worker starts, or says why it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.free_port import free_port
from sandbox.redis_server import RedisServer
from tests.system.stage import TOKEN, Stage, WorkerProcess, eventually
from worker.celery_bridge.pool import TaskPool
from worker.celery_bridge.unsupported_options import unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary


@pytest.fixture(scope="module")
def stage(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path_factory.mktemp("start")) as found:
        yield found


def failed_start(stage: Stage, *arguments: str, **settings: object) -> str:
    """What a worker printed that did not start."""
    worker = stage.start(*arguments, **settings)
    assert worker.process.wait(20) != 0
    assert "Traceback" not in worker.log
    assert TOKEN not in worker.log
    return worker.log


def test_a_worker_starts_where_the_system_has_no_time_zones(stage: Stage) -> None:
    # The packages of the tests bring the zones too, so that the start alone would not tell who does.
    assert "tzdata" in (requires("lock-worker") or [])
    worker = stage.worker(PYTHONTZPATH="")
    assert worker.stop() == 0


def test_wrong_settings_stop_the_start_with_one_message_that_names_every_problem(stage: Stage) -> None:
    printed = failed_start(
        stage,
        REDIS_URL="redis://:a-secret@127.0.0.1:6379/zero",
        API_TOKEN="",
        CONCURRENCY=0,
        LEASE_SECONDS=1,
        ATTEMPT_TIMEOUT_SECONDS=2,
    )

    assert printed.count("lock-worker does not start: the settings are wrong:") == 1
    for line in (
        "  - REDIS_URL: must end in a database number such as /0, or in nothing",
        "  - CONCURRENCY: Input should be greater than or equal to 1",
        "  - LEASE_SECONDS: must be longer than ATTEMPT_TIMEOUT_SECONDS (2)",
        "  - API_TOKEN: is missing; give it or API_TOKEN_FILE",
    ):
        assert line in printed
    assert "a-secret" not in printed


def test_a_missing_file_of_authorities_stops_the_start_with_a_sentence(stage: Stage) -> None:
    printed = failed_start(stage, API_URL="https://127.0.0.1:9", SSL_CERT_FILE="/missing/authorities.pem")
    assert "  - SSL_CERT_FILE: /missing/authorities.pem cannot be read (FileNotFoundError)" in printed


def test_options_that_would_break_a_promise_stop_the_start_each_with_its_sentence(stage: Stage) -> None:
    options = {
        "-P": "threads",
        "--autoscale": "3,1",
        "--max-tasks-per-child": "5",
        "--max-memory-per-child": "5",
        "--time-limit": "5",
        "--soft-time-limit": "5",
    }
    stage.send("not-to-be-purged")

    printed = failed_start(stage, "--purge", "-B", *(word for option in options.items() for word in option))

    assert "lock-worker does not start with these options:" in printed
    for name in ("--pool", "--purge", "-B", *list(options)[1:]):
        assert f"  - {name}: " in printed
    assert stage.jobs_left() == 1
    stage.redis.flushall()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-c", "10001"), "-c 10001: a worker runs at least 1 job at once, and 10,000 at most"),
        (("-Q", "a,lw:1:b"), "-Q 'lw:1:b': its name must not start with lw:"),
        (("-Q", "moderation.results"), "-Q 'moderation.results': that name is used for something else"),
        (("-Q", ",".join(f"q-{n}" for n in range(51))), "-Q: 51 queues are named, and a worker takes from 50 at most"),
    ],
)
def test_slots_and_queues_that_make_no_sense_stop_the_start(stage: Stage, options: tuple[str, ...], said: str) -> None:
    assert said in failed_start(stage, *options)


def test_another_pool_alone_stops_the_start(stage: Stage) -> None:
    assert "  - --pool: only the worker's own asyncio pool" in failed_start(stage, "-P", "solo")


def started_with(limit: str, stage: Stage, *options: str, **settings: object) -> tuple[WorkerProcess, str]:
    """A worker under a limit of open files, as ``ulimit`` sets it, and the limits that it has."""
    worker = stage.start_through(("sh", "-c", f'ulimit {limit} && exec "$@"', "sh"), *options, **settings)
    eventually(lambda: worker.process.poll() is not None or " ready." in worker.log, "a start or its end")
    limits = Path(f"/proc/{worker.process.pid}/limits")
    return worker, limits.read_text("utf-8") if worker.process.poll() is None else ""


def test_too_few_open_files_for_the_jobs_at_once_stop_the_start_with_the_numbers(stage: Stage) -> None:
    worker, _ = started_with("-n 200", stage, CONCURRENCY=1000)

    assert worker.process.wait(20) == 1
    assert "CONCURRENCY: 1000 jobs at once need up to 1080 open files, and this process may have 200" in worker.log
    assert "or run 120 jobs at once at most" in worker.log


def test_the_option_counts_and_not_the_setting_that_it_overrides(stage: Stage) -> None:
    worker, limits = started_with("-n 200", stage, "-c", "10", CONCURRENCY=1000)

    assert re.search("Max open files +200 +200 ", limits)
    assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
    assert worker.stop() == 0


def test_a_low_soft_limit_is_raised_where_the_hard_one_is_enough(stage: Stage) -> None:
    worker, limits = started_with("-Sn 100 && ulimit -Hn 900", stage, CONCURRENCY=700)

    assert re.search("Max open files +900 +900 ", limits)
    assert worker.stop() == 0


def test_queues_count_as_well_for_each_has_connections_of_its_own(stage: Stage) -> None:
    queues = ",".join(f"queue-{number}" for number in range(40))

    worker, _ = started_with("-n 200", stage, "-c", "100", "-Q", queues)

    assert worker.process.wait(20) == 1
    assert "CONCURRENCY: 100 jobs at once from 40 queues need up to 336 open files" in worker.log


def ask(stage: Stage, command: str, **arguments: object) -> dict[str, str]:
    """The answer of the only worker to a command of Celery's remote control."""
    answers: Any = stage.producer.control.broadcast(command, arguments, reply=True, timeout=10, limit=1)
    ((_, told),) = answers[0].items()
    return dict(told)


def slots_of(stage: Stage) -> int:
    stats: Any = ask(stage, "stats")
    return int(stats["pool"]["max-concurrency"])


def test_slots_that_are_added_raise_the_limit_of_open_files(stage: Stage) -> None:
    worker, limits = started_with("-Sn 200 && ulimit -Hn 900", stage, CONCURRENCY=100)
    assert re.search("Max open files +200 +900 ", limits)

    assert ask(stage, "pool_grow", n=300) == {"ok": "this worker runs up to 400 jobs at once now"}

    limits = Path(f"/proc/{worker.process.pid}/limits").read_text("utf-8")
    assert re.search("Max open files +900 +900 ", limits)
    assert worker.stop() == 0


@pytest.mark.parametrize(("command", "n"), [("pool_grow", 300), ("pool_shrink", -300), ("pool_grow", 10**12)])
def test_slots_are_added_as_far_as_there_are_open_files_for_them(stage: Stage, command: str, n: int) -> None:
    worker, _ = started_with("-n 200", stage, CONCURRENCY=100)

    told = ask(stage, command, n=n)["ok"]

    assert told.startswith(
        f"this worker runs up to 120 jobs at once now: {min(100 + abs(n), 10_000)} jobs at once need"
    )
    assert "this process may have 200 (ulimit -n): raise it to" in told
    assert slots_of(stage) == 120
    assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
    assert worker.stop() == 0


def test_where_there_is_no_room_for_one_slot_or_queue_more_none_is_added(stage: Stage) -> None:
    worker, _ = started_with("-n 200", stage, CONCURRENCY=120)

    grown = ask(stage, "pool_grow", n=5)
    added = ask(stage, "add_consumer", queue="another")

    assert grown["error"].startswith("pool_grow is refused: 121 jobs at once need up to 201 open files")
    assert added["error"].startswith(
        "add_consumer is refused: 120 jobs at once from 2 queues need up to 204 open files"
    )
    assert slots_of(stage) == 120
    assert ask(stage, "pool_shrink", n=20) == {"ok": "this worker runs up to 100 jobs at once now"}
    assert "ok" in ask(stage, "add_consumer", queue="another")
    assert worker.stop() == 0


def test_a_limit_that_is_enough_is_left_alone(stage: Stage) -> None:
    worker, limits = started_with("-Sn 300 && ulimit -Hn 900", stage, CONCURRENCY=100)

    assert re.search("Max open files +300 +900 ", limits)
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("autoscale", (3, 1)), ("purge", True), ("beat", True), ("max_tasks_per_child", 1),
        ("max_memory_per_child", 1), ("time_limit", 1.0), ("soft_time_limit", 1.0),
    ],
)  # fmt: skip
def test_one_such_option_is_enough(option: str, value: object) -> None:
    assert unsupported({option: value}, TaskPool, TaskPool) is not None
    assert unsupported({option: None}, TaskPool, TaskPool) is None


def test_options_that_switch_off_what_is_off_anyway_are_accepted(stage: Stage) -> None:
    worker = stage.worker("--without-gossip", "--without-mingle", "--without-heartbeat")

    assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
    assert worker.stop() == 0


def test_a_worker_waits_for_a_redis_that_is_not_there_yet_and_says_so(
    stage: Stage, server_binary: ServerBinary
) -> None:
    port = free_port("127.0.0.1")
    worker = stage.start(REDIS_URL=f"redis://127.0.0.1:{port}/0")
    (line,) = eventually(lambda: worker.lines("redis_unavailable"), "a line that tells that it waits")
    assert line["level"] == "error"

    server = RedisServer(server_binary)
    server.port = port
    with server, Stage(server.url, stage.folder) as own:
        own.api.script = stage.api.script
        job = own.send()
        worker.wait_ready()
        assert own.event_of(job)["data"]["outcome"] == "locked"
        worker.close()


def test_lock_worker_run_is_the_same_worker(stage: Stage) -> None:
    command = Path(sys.executable).with_name("lock-worker")
    with subprocess.Popen(
        [command, "run", "-n", "by-name@test"],
        env={"PATH": "", **stage.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert stage.event_of(stage.send())["data"]["outcome"] == "locked"
            process.terminate()
            printed, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "by-name@test ready." in printed
