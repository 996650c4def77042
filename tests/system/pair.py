"""A primary and its replica behind one address, a worker at it, and what tests of both do."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import redis
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError

from sandbox.faults import Delay
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.lossy_network import LossyNetwork
from tests.system.stage import Stage, WorkerProcess, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

NAME = "lock-1@test"
SLOTS = 10
SCRIPT = Script(rules=(Rule(ids="slow*", then=Delay(ms=1500)),))
#: Work goes on within so many seconds after the address leads to a primary again.
GOES_ON_SECONDS = 10.0


class Pair:
    """A primary and its replica behind one address; ``old`` has the stage before the failover, ``new`` after it."""

    def __init__(self, binary: ServerBinary, folder: Path, stack: ExitStack) -> None:
        # A snapshot is due in an hour, so that one that fails is a reason to refuse writes.
        self.first = stack.enter_context(RedisServer(binary, {"enable-protected-configs": "yes", "save": "3600 1"}))
        self.second = stack.enter_context(RedisServer(binary, {"replicaof": f"127.0.0.1 {self.first.port}"}))
        self.network = stack.enter_context(LossyNetwork(self.first.port))
        self.old = stack.enter_context(Stage(self.first.url, folder))
        self.old.api.script = SCRIPT
        self.new = stack.enter_context(redis.Redis.from_url(self.second.url))
        self.producer = stack.enter_context(Celery("producer", broker=self.second.url))
        eventually(lambda: self.new.info("replication")["master_link_status"] == "up", "a replica that follows")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.network.port}/0"

    def fail_over(self) -> None:
        """Promote the replica, let the address lead there, and let the old primary live on as its replica."""
        self.old.redis.execute_command("WAIT", 1, 5000)
        self.new.replicaof("NO", "ONE")
        self.network.lead_to(self.second.port)
        self.old.redis.replicaof("127.0.0.1", str(self.second.port))

    def fail_over_without_the_old(self) -> None:
        """Promote the replica and let the address lead there; the old primary is not told, and remains one."""
        self.new.replicaof("NO", "ONE")
        self.network.lead_to(self.second.port)

    def cut_off_the_replicas(self) -> None:
        """Let the old primary refuse all writes: it wants a replica, and has none (NOREPLICAS)."""
        self.old.redis.execute_command("WAIT", 1, 5000)
        self.new.replicaof("127.0.0.1", "1")
        self.old.redis.config_set("min-replicas-to-write", 1)

    def take_the_disk(self) -> None:
        """Let the old primary refuse all writes: it cannot save its data (MISCONF)."""
        self.old.redis.execute_command("WAIT", 1, 5000)
        self.old.redis.config_set("dir", "/proc")  # where nobody can make a file, whatever the user
        self.old.redis.bgsave()
        saved = "rdb_last_bgsave_status"
        eventually(lambda: self.old.redis.info("persistence")[saved] == "err", "a snapshot that failed")

    def send(self, conversation: str) -> str:
        """Enqueue a job at the new primary."""
        kwargs = {"conversation_id": conversation}
        return str(self.producer.send_task("moderation.lock_conversation", kwargs=kwargs, queue="moderation.lock").id)

    def assert_events(self, jobs: set[str]) -> None:
        """Each job has its one event at the new primary, soon."""
        results = "moderation.results"
        eventually(lambda: self.new.xlen(results) >= len(jobs), f"{len(jobs)} events", GOES_ON_SECONDS)
        texts = [fields[b"event"].decode() for _, fields in self.new.xrange(results)]
        assert len(texts) == len(jobs)
        assert all(sum(job in text for text in texts) == 1 for job in jobs)


def start_warm(stage: Stage, url: str) -> WorkerProcess:
    """A worker at this address that fills all its slots at once."""
    worker = stage.worker("-n", NAME, REDIS_URL=url, CONCURRENCY=SLOTS, LEASE_SECONDS=30)
    return stage.warm_up(worker)


def fill_the_slots(stage: Stage) -> set[str]:
    """Twice as many jobs as there are slots, so that no take is under way."""
    jobs = {stage.send(f"slow-{number}") for number in range(2 * SLOTS)}
    eventually(lambda: len(stage.api.calls()) >= SLOTS, "full slots")
    return jobs


def assert_it_answers(pair: Pair) -> None:
    """Remote control finds the worker at the new primary."""

    def answers() -> bool:
        with suppress(RedisConnectionError):
            return bool(pair.producer.control.inspect(timeout=1, destination=[NAME]).ping())
        return False

    eventually(answers, "an answer to remote control", GOES_ON_SECONDS)
