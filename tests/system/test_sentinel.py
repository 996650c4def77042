"""A primary behind sentinels dies, or another one is promoted: all of a worker finds the new one by itself."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError

from sandbox.free_port import free_port
from sandbox.redis_sentinels import RedisSentinels, Sentinel
from tests.cli.terminal import Terminal
from tests.system.pair import GOES_ON_SECONDS, NAME, SCRIPT, SLOTS
from tests.system.stage import QUEUE, RESULTS, TASK, Stage, eventually
from worker.broker.address_resolver import NODE_TIMEOUT_SECONDS, SentinelResolver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.redis_server import RedisServer
    from sandbox.server_binaries import ServerBinary
    from tests.system.stage import WorkerProcess
    from worker.broker.address_resolver import Address

PASSWORDS = {"SENTINEL_PASSWORD": "of-the-sentinels"}
NOBODY = "127.0.0.1:1"
PAGE = Path(__file__).parents[2] / "docs" / "redis-topologies.md"


@pytest.fixture(scope="module")
def sentinels(server_binary: ServerBinary) -> Iterator[RedisSentinels]:
    """A primary, a replica and three sentinels, all with passwords."""
    password = PASSWORDS["SENTINEL_PASSWORD"]
    own = {"requirepass": password, "sentinel": [f"sentinel-pass {password}"]}
    servers = dict.fromkeys(("requirepass", "masterauth"), "of-the-servers")
    with RedisSentinels(server_binary, servers, sentinel_options=own) as found:
        yield found


@pytest.fixture
def stage(sentinels: RedisSentinels, tmp_path: Path) -> Iterator[Stage]:
    """The system before a failover, with a producer at the primary."""
    sentinels.revive()
    with Stage(sentinels.primary().url, tmp_path) as found:
        found.redis.flushall()
        found.api.script = SCRIPT
        yield found


def url(sentinels: RedisSentinels, master: str = "mymaster") -> str:
    """A URL whose first sentinel is down."""
    return f"redis+sentinel://:of-the-servers@{NOBODY},{sentinels.addresses}/{master}/0"


def busy_worker(stage: Stage, sentinels: RedisSentinels) -> tuple[WorkerProcess, set[str]]:
    """A worker that has jobs in flight and more to take, all of them replicated."""
    worker = stage.worker("-n", NAME, REDIS_URL=url(sentinels), CONCURRENCY=SLOTS, **PASSWORDS)
    jobs = {stage.send(f"slow-{number}") for number in range(2 * SLOTS)}
    eventually(stage.api.calls, "a call")
    eventually(lambda: stage.redis.execute_command("WAIT", 1, 1000), "jobs that the replica has")
    return worker, jobs


def assert_all_goes_on_at(primary: RedisServer, jobs: set[str]) -> None:
    """Each job has one event in the stream of the new primary, one more job too, and remote control answers."""
    with ExitStack() as stack:
        new = stack.enter_context(redis.Redis.from_url(primary.url))
        producer = stack.enter_context(Celery("producer", broker=primary.url))
        conversation = {"conversation_id": "after"}
        after = eventually(
            lambda: producer.send_task(TASK, kwargs=conversation, queue=QUEUE, retry=False).id, "a job", GOES_ON_SECONDS
        )

        def ids() -> list[str]:
            return [json.loads(fields[b"event"])["id"] for _, fields in new.xrange(RESULTS)]

        eventually(lambda: after in ids(), "an event of the job at the new primary", GOES_ON_SECONDS)
        # What the worker completed at the old one in its last moments comes again when the leases are over.
        eventually(lambda: len(ids()) > len(jobs), "all events")
        assert sorted(ids()) == sorted({*jobs, after})

        def answers() -> bool:
            with suppress(RedisConnectionError):  # sentinels cut clients' connections when they change a server's role
                return bool(producer.control.inspect(timeout=1, destination=[NAME]).ping())
            return False

        eventually(answers, "an answer to remote control", GOES_ON_SECONDS)


def test_after_an_ordered_failover_a_worker_leaves_the_old_primary_and_publishes_nothing_twice(
    stage: Stage, sentinels: RedisSentinels
) -> None:
    worker, jobs = busy_worker(stage, sentinels)

    new = sentinels.fail_over()

    eventually(lambda: worker.lines("primary_changed"), "a line that tells of it", GOES_ON_SECONDS)
    assert_all_goes_on_at(new, jobs)
    assert worker.stop() == 0


def test_a_worker_goes_on_at_the_replica_when_the_primary_was_killed(stage: Stage, sentinels: RedisSentinels) -> None:
    worker, jobs = busy_worker(stage, sentinels)

    dead = sentinels.kill_primary()

    new = eventually(lambda: (found := sentinels.primary()) is not dead and found, "a new primary")
    assert_all_goes_on_at(new, jobs)
    assert worker.stop() == 0


def stock_producer(sentinels: RedisSentinels) -> Celery:
    """A service's app, as the page advises; its first sentinel is down."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    hosts = (NOBODY, *sentinels.addresses.split(","))
    broker = ";".join(f"sentinel://:of-the-servers@{host}/0" for host in hosts)
    found: dict[str, Any] = {}
    exec(re.sub('broker="[^"]*"', f'broker="{broker}"', code), found)  # noqa: S102 - our own page
    app: Celery = found["app"]
    app.conf.broker_transport_options["sentinel_kwargs"]["password"] = PASSWORDS["SENTINEL_PASSWORD"]
    return app


def test_jobs_that_stock_celery_sends_by_the_recipe_while_the_primary_dies_reach_the_worker(
    stage: Stage, sentinels: RedisSentinels
) -> None:
    _, jobs = busy_worker(stage, sentinels)
    with stock_producer(sentinels) as producer:

        def send(conversation: str) -> str:
            return str(producer.send_task(TASK, kwargs={"conversation_id": conversation}, queue=QUEUE).id)

        jobs.add(send("before"))
        eventually(lambda: stage.redis.execute_command("WAIT", 1, 1000), "jobs that the replica has")
        dead = sentinels.kill_primary()
        jobs |= {send(f"meanwhile-{number}") for number in range(3)}

    assert_all_goes_on_at(eventually(lambda: (found := sentinels.primary()) is not dead and found, "a primary"), jobs)


def test_a_worker_that_starts_ends_if_no_sentinel_knows_the_primarys_name(
    stage: Stage, sentinels: RedisSentinels
) -> None:
    worker = stage.start(REDIS_URL=url(sentinels, "nobody"), **PASSWORDS)

    assert worker.process.wait(20) == 1
    (line,) = worker.lines("redis_unfit")
    assert line["problem"] == "No sentinel in REDIS_URL knows a primary by the name nobody."


def test_an_exporter_that_starts_ends_as_a_worker_does_if_no_sentinel_knows_the_primarys_name(
    stage: Stage, sentinels: RedisSentinels
) -> None:
    shell = Terminal({"REDIS_URL": url(sentinels, "nobody"), **PASSWORDS}, stage.folder)

    ended = shell.run("exporter", HEALTH_HOST="127.0.0.1", HEALTH_PORT=str(free_port("127.0.0.1")))

    assert ended.returncode == 1
    (line,) = [found for found in map(json.loads, ended.stderr.splitlines()) if found["event"] == "redis_unfit"]
    assert line["problem"] == "No sentinel in REDIS_URL knows a primary by the name nobody."
    assert line["advice"].startswith("Correct the name after the sentinels in REDIS_URL")


@pytest.mark.parametrize(
    ("address", "password", "told"),
    [
        (
            "sentinels",
            "wrong",
            "do not accept the password, or do not permit SENTINEL MASTERS.\nCorrect SENTINEL_PASSWORD",
        ),
        (NOBODY, "any", f"no sentinel answers: {NOBODY}: "),
        ("primary", "of-the-servers", "The hosts in REDIS_URL are no sentinels.\nLet REDIS_URL start with redis://"),
    ],
)
def test_a_command_says_why_the_sentinels_are_of_no_use(
    stage: Stage, sentinels: RedisSentinels, address: str, password: str, told: str
) -> None:
    names = {"sentinels": sentinels.addresses, "primary": f"127.0.0.1:{sentinels.primary().port}"}
    shell = Terminal({"REDIS_URL": f"redis+sentinel://{names.get(address, address)}/mymaster"}, stage.folder)

    ended = shell.run("status", SENTINEL_PASSWORD=password)

    assert ended.returncode == 1
    assert told in ended.stderr


def resolver_that_asks(sentinels: RedisSentinels, first: Address, *, timeout_seconds: float) -> SentinelResolver:
    """A resolver that asks one sentinel, and then those that run."""
    others = [("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels]
    options = {"password": PASSWORDS["SENTINEL_PASSWORD"]}
    return SentinelResolver([first, *others], "mymaster", options, timeout_seconds=timeout_seconds)


@pytest.mark.usefixtures("stage")
def test_a_resolver_gives_up_in_time_and_then_begins_with_the_sentinels_that_were_not_asked(
    sentinels: RedisSentinels,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        resolver = resolver_that_asks(sentinels, silent.getsockname(), timeout_seconds=NODE_TIMEOUT_SECONDS + 0.1)

        with pytest.raises(RedisConnectionError, match="no sentinel names the primary within"):
            resolver.resolve()

        assert resolver.resolve() == ("127.0.0.1", sentinels.primary().port)


@pytest.mark.parametrize("wrong", ["no sentinel", "a sentinel of others"])
def test_a_host_that_is_of_no_use_among_the_sentinels_does_no_harm(
    stage: Stage, sentinels: RedisSentinels, wrong: str, server_binary: ServerBinary
) -> None:
    primary = ("127.0.0.1", sentinels.primary().port)
    with Sentinel(server_binary, {"requirepass": PASSWORDS["SENTINEL_PASSWORD"]}) as other:
        host = primary if wrong == "no sentinel" else ("127.0.0.1", other.port)

        assert resolver_that_asks(sentinels, host, timeout_seconds=20).resolve() == primary

        first = f"{host[0]}:{host[1]}"
        shell = Terminal(
            {"REDIS_URL": url(sentinels).replace(f"{NOBODY},", f"{first},"), "API_TOKEN": "t"}, stage.folder
        )
        assert first in shell.run("doctor", API_URL=stage.api.url, **PASSWORDS).stdout


@pytest.mark.usefixtures("stage")
def test_whatever_threads_resolve_at_once_the_next_one_begins_with_a_sentinel_that_answers(
    sentinels: RedisSentinels,
) -> None:
    resolver = resolver_that_asks(sentinels, ("127.0.0.1", 1), timeout_seconds=20)
    begin = threading.Barrier(8)

    def resolve() -> None:
        begin.wait()
        resolver.resolve()

    threads = [threading.Thread(target=resolve) for _ in range(begin.parties)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert next(resolver.views())[0] != NOBODY


def test_doctor_names_the_sentinel_that_is_down(stage: Stage, sentinels: RedisSentinels) -> None:
    shell = Terminal({"REDIS_URL": url(sentinels), "API_URL": stage.api.url, "API_TOKEN": "t"}, stage.folder)

    ended = shell.run("doctor", **PASSWORDS)

    assert f"warning  redis_sentinels: The sentinel at {NOBODY} does not answer: " in ended.stdout
