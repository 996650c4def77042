"""The README's consumer, run as it stands there: every event reaches ``handle``, whatever dies."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from sandbox.redis_server import RedisServer
from tests.cli.terminal import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.server_binaries import ServerBinary

ROOT = Path(__file__).parents[2]
STREAM, GROUP = "moderation.results", "my-service"
URL = "redis://127.0.0.1:6379/0"
#: What is left to whoever reads the README: their own function.
HANDLE = """
import os
file = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def handle(event):
    os.write(file, event["id"].encode() + b"\\n")
"""


def example() -> str:
    """The README's own text."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (found,) = [
        block for block in re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL) if "xread" in block
    ]
    return str(found)


class Consumer:
    """The example as a process, with a ``handle`` that notes each event's id in a file."""

    def __init__(self, url: str, folder: Path) -> None:
        self._handled = folder / "handled"
        self._program = folder / "consumer.py"
        text = example()
        assert URL in text
        self._program.write_text(HANDLE.format(path=str(self._handled)) + text.replace(URL, url))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run it until the end of the block, where it is killed."""
        with subprocess.Popen([sys.executable, self._program], stdout=subprocess.DEVNULL) as process:
            try:
                yield process
                assert process.poll() is None, "it ended by itself"
            finally:
                process.kill()

    def handled(self) -> list[str]:
        """The ids of the events that ``handle`` has seen, in this order."""
        return self._handled.read_text().split() if self._handled.exists() else []

    def wait_for(self, ids: Sequence[str]) -> None:
        """Wait until ``handle`` has seen these events."""
        eventually(lambda: set(ids) <= set(self.handled()), f"{len(ids)} events at handle")


def publish(client: redis.Redis, first: int, count: int) -> list[str]:
    """Add events to the stream; their ids."""
    ids = [f"job-{number}" for number in range(first, first + count)]
    with client.pipeline(transaction=False) as pipeline:
        for each in ids:
            pipeline.xadd(STREAM, {"event": json.dumps({"id": each})})
        pipeline.execute()
    return ids


def pending(client: redis.Redis) -> int:
    groups: Any = client.xinfo_groups(STREAM)
    return sum(int(group["pending"]) for group in groups)


def test_every_event_reaches_it_though_it_is_killed_ten_times_and_redis_restarts(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary, {"appendonly": "yes"}) as server, redis.Redis.from_url(server.url) as client:
        consumer = Consumer(server.url, tmp_path)
        sent: list[str] = []
        for life in range(10):
            sent += publish(client, len(sent), 500)
            with consumer.running():
                if life == 5:
                    server.restart()
                before = len(consumer.handled())
                eventually(lambda before=before: len(consumer.handled()) > before + 100, "a consumer at work")  # type: ignore[misc]
        with consumer.running():
            consumer.wait_for(sent)
            eventually(lambda: pending(client) == 0, "every event acknowledged")

    assert set(consumer.handled()) == set(sent)
    assert len(consumer.handled()) <= len(sent) + 10 * 10 + 10  # a batch for each death, and for the restart


def test_what_it_left_comes_before_what_is_new(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    old = publish(redis_client, 0, 25)
    redis_client.xgroup_create(STREAM, GROUP, id="0")
    redis_client.xreadgroup(GROUP, socket.gethostname(), {STREAM: ">"}, count=25)
    new = publish(redis_client, 25, 25)
    consumer = Consumer(redis_url, tmp_path)

    with consumer.running():
        consumer.wait_for(new)

    assert consumer.handled()[:50] == old + new


def test_what_a_dead_reader_left_for_half_a_minute_is_taken_over(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    ids = publish(redis_client, 0, 25)
    redis_client.xgroup_create(STREAM, GROUP, id="0")
    answer: Any = redis_client.xreadgroup(GROUP, "gone", {STREAM: ">"}, count=25)
    entries = [entry for entry, _ in answer[0][1]]
    redis_client.xclaim(STREAM, GROUP, "gone", 0, entries, idle=30_000, justid=True)
    redis_client.xreadgroup(GROUP, "living", {STREAM: ">"}, count=25)
    consumer = Consumer(redis_url, tmp_path)

    with consumer.running():
        consumer.wait_for(ids)
        eventually(lambda: pending(redis_client) == 0, "every event acknowledged")


def test_what_a_living_reader_is_at_is_left_to_it(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    held = publish(redis_client, 0, 5)
    redis_client.xgroup_create(STREAM, GROUP, id="0")
    redis_client.xreadgroup(GROUP, "living", {STREAM: ">"}, count=5)
    new = publish(redis_client, 5, 25)
    consumer = Consumer(redis_url, tmp_path)

    with consumer.running():
        consumer.wait_for(new)

    assert not set(held) & set(consumer.handled())


def test_events_that_were_trimmed_before_they_were_read_and_foreign_entries_do_not_stop_it(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    publish(redis_client, 0, 5)
    redis_client.xgroup_create(STREAM, GROUP, id="0")
    redis_client.xreadgroup(GROUP, socket.gethostname(), {STREAM: ">"}, count=5)
    redis_client.xtrim(STREAM, maxlen=0, approximate=False)
    redis_client.xadd(STREAM, {"something": "else"})
    ids = publish(redis_client, 5, 5)
    consumer = Consumer(redis_url, tmp_path)

    with consumer.running():
        consumer.wait_for(ids)
        eventually(lambda: pending(redis_client) == 0, "every entry acknowledged")

    assert consumer.handled() == ids


def test_it_connects_anew_when_its_server_becomes_a_replica(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary) as server, redis.Redis.from_url(server.url) as client:
        consumer = Consumer(server.url, tmp_path)

        def connections() -> set[str]:
            return {each["id"] for each in client.client_list() if each["cmd"] not in {"client|list", "replicaof"}}

        with consumer.running():
            consumer.wait_for(publish(client, 0, 5))
            before = connections()
            assert before
            client.replicaof("127.0.0.1", 1)
            eventually(lambda: not connections() & before, "the old connection closed")
            client.replicaof("NO", "ONE")

            consumer.wait_for(publish(client, 5, 5))


def test_a_server_that_forgot_the_group_is_read_from_its_start(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    consumer = Consumer(redis_url, tmp_path)

    with consumer.running():
        consumer.wait_for(publish(redis_client, 0, 5))
        redis_client.flushall()

        consumer.wait_for(publish(redis_client, 5, 5))


def test_a_full_server_is_read(server_binary: ServerBinary, tmp_path: Path) -> None:
    with RedisServer(server_binary) as server, redis.Redis.from_url(server.url) as client:
        ids = publish(client, 0, 100)
        client.xgroup_create(STREAM, GROUP, id="0")
        client.config_set("maxmemory", 1)
        consumer = Consumer(server.url, tmp_path)

        with consumer.running():
            consumer.wait_for(ids)


def test_a_user_with_the_permissions_that_the_page_names_can_run_it(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    page = (ROOT / "docs/consuming.md").read_text("utf-8")
    (line,) = re.findall(r"`(ACL SETUSER my-service .*)`", page)
    with RedisServer(server_binary) as server, redis.Redis.from_url(server.url) as client:
        client.execute_command(*line.split())
        ids = publish(client, 0, 5)
        consumer = Consumer(server.url.replace("redis://", "redis://my-service:a-long-secret@"), tmp_path)

        with consumer.running():
            consumer.wait_for(ids)
