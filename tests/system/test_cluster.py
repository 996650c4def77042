"""A worker whose queue is in one slot of a Redis Cluster finds the slot's owner, and follows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from redis.crc import key_slot

from sandbox.faults import Respond
from sandbox.live_server import ask
from sandbox.redis_cluster import RedisCluster
from sandbox.redis_server import RedisServer, RedisServerError
from sandbox.script import Rule, Script
from tests.cli.terminal import Terminal
from tests.system.pair import GOES_ON_SECONDS, NAME, SCRIPT, SLOTS
from tests.system.stage import TASK, Stage, eventually
from tests.system.test_redis_access import rules_for
from worker.broker.keys import LAYOUT, Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.server_binaries import ServerBinary
    from tests.system.stage import WorkerProcess

QUEUE = "{mod}.lock"
RESULTS = "{mod}.results"
NOBODY = "127.0.0.1:1"
README = Path(__file__).parents[2] / "README.md"
PAGE = README.parent / "docs" / "redis-topologies.md"


@pytest.fixture(scope="module")
def cluster(server_binary: ServerBinary) -> Iterator[RedisCluster]:
    """Three nodes with slots, and a replica of each."""
    with RedisCluster(server_binary) as found:
        yield found


@pytest.fixture
def stage(cluster: RedisCluster, tmp_path: Path) -> Iterator[Stage]:
    """The API and workers; what is in Redis is asked of the owner of the slot."""
    cluster.revive()
    with Stage(cluster.owner(QUEUE).url, tmp_path) as found:
        found.redis.flushall()
        found.api.script = SCRIPT
        yield found


@pytest.fixture
def shell(stage: Stage, cluster: RedisCluster) -> Terminal:
    """A shell whose REDIS_URL names the cluster, by a node that is down and those that run."""
    names = {"REDIS_URL": f"redis+cluster://{NOBODY},{cluster.addresses}", "LOCK_QUEUE": QUEUE}
    return Terminal({**names, "API_URL": stage.api.url, "API_TOKEN": "t"}, stage.folder)


def start(stage: Stage, shell: Terminal) -> WorkerProcess:
    settings = {name: shell.environment[name] for name in ("REDIS_URL", "LOCK_QUEUE")}
    return stage.worker("-n", NAME, CONCURRENCY=SLOTS, **settings)


def sent(shell: Terminal, *conversations: str) -> set[str]:
    """Send jobs by the command; the ids."""
    ended = shell.run("enqueue", *conversations)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


def assert_events(cluster: RedisCluster, jobs: set[str]) -> None:
    """Each job has its one event at the owner of the slot, soon."""

    def ids() -> list[str]:
        with suppress(redis.RedisError, RedisServerError), redis.Redis.from_url(cluster.owner(QUEUE).url) as owner:
            return [json.loads(fields[b"event"])["id"] for _, fields in owner.xrange(RESULTS)]
        return []

    eventually(lambda: len(ids()) >= len(jobs), f"{len(jobs)} events", 2 * GOES_ON_SECONDS)
    assert sorted(ids()) == sorted(jobs)


def test_a_worker_goes_on_at_the_replica_when_the_owner_of_its_slot_was_killed(
    stage: Stage, shell: Terminal, cluster: RedisCluster
) -> None:
    worker = start(stage, shell)
    jobs = sent(shell, *[f"slow-{number}" for number in range(2 * SLOTS)])
    eventually(stage.api.calls, "a call")
    stage.redis.execute_command("WAIT", 1, 3000)

    cluster.kill_owner(QUEUE)

    assert_events(cluster, jobs)
    assert_events(cluster, jobs | sent(shell, "after"))
    assert len(stage.api.calls()) == 2 * SLOTS + 1
    assert worker.stop() == 0


def test_a_worker_follows_its_slot_to_another_node_with_the_jobs_that_wait(
    stage: Stage, shell: Terminal, cluster: RedisCluster
) -> None:
    worker = start(stage, shell)
    ended = shell.run("enqueue", "--countdown", "3", *[f"c-{number}" for number in range(200)])
    delayed = set(ended.stdout.split())
    jobs = sent(shell, *[f"slow-{number}" for number in range(2 * SLOTS)])

    cluster.move_slot(QUEUE)

    assert_events(cluster, delayed | jobs | sent(shell, "after"))
    assert worker.stop() == 0


def test_remote_control_and_jobs_sent_by_the_workers_own_app_reach_the_worker(
    stage: Stage, shell: Terminal, cluster: RedisCluster
) -> None:
    start(stage, shell)
    options = {"global_keyprefix": "{mod}"}

    with Celery("remote", broker=cluster.owner(QUEUE).url) as remote:
        remote.conf.broker_transport_options = options
        inspect = remote.control.inspect(timeout=5, destination=[NAME])
        assert inspect.ping() == {NAME: {"ok": "pong"}}
        stats: Any = inspect.stats()
        assert stats[NAME]["broker"]["transport_options"]["resolver"].startswith("ClusterResolver(")
        answers: Any = remote.control.add_consumer("other", destination=[NAME], reply=True, timeout=5)

    assert "must hold the hash tag {mod}" in answers[0][NAME]["error"]
    call = (sys.executable, "-m", "celery", "-A", "worker", "call", TASK, "--kwargs", '{"conversation_id": "called"}')
    job = subprocess.run(call, env=shell.environment, capture_output=True, text=True, check=True).stdout.strip()
    assert_events(cluster, {job})


def by_redis_py(cluster: RedisCluster, message: str) -> None:
    with redis.RedisCluster.from_url(cluster.servers[0].url) as client:
        client.lpush(QUEUE, message)


def by_redis_cli(cluster: RedisCluster, message: str) -> None:
    """From a node that does not have the slot, which tells redis-cli where to go."""
    program = shutil.which("redis-cli")
    if program is None:
        pytest.skip("there is no redis-cli on this machine")
    other = next(server for server in cluster.servers if server is not cluster.owner(QUEUE))
    command = (program, "-c", "-h", "127.0.0.1", "-p", str(other.port), "LPUSH", QUEUE, message)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "1"


@pytest.mark.parametrize("push", [by_redis_py, by_redis_cli])
def test_a_message_that_any_cluster_client_pushes_as_the_readme_writes_it_reaches_the_worker(
    stage: Stage, shell: Terminal, cluster: RedisCluster, push: Callable[[RedisCluster, str], None]
) -> None:
    found = re.search(r"^LPUSH moderation\.lock '(.*)'$", README.read_text("utf-8"), re.MULTILINE)
    assert found is not None

    push(cluster, found[1])

    start(stage, shell)
    assert_events(cluster, {json.loads(found[1])["headers"]["id"]})


def test_a_dead_letter_is_sent_again_on_a_cluster(stage: Stage, shell: Terminal) -> None:
    stage.api.script = Script(rules=(Rule(ids="missing*", then=Respond(status=404)),))
    start(stage, shell)
    sent(shell, "missing-1")
    eventually(lambda: stage.redis.xlen("{mod}.dead"), "a dead letter")

    assert shell.run("replay", "--all").returncode == 0

    eventually(lambda: stage.redis.xlen(RESULTS) > 1, "the event of the job that was sent again")


def test_a_worker_does_not_start_on_a_cluster_where_jobs_need_a_newer_one(stage: Stage, shell: Terminal) -> None:
    maintenance = Keys(QUEUE).maintenance
    worker = start(stage, shell)
    assert stage.redis.hget(maintenance, "layout") == f"{LAYOUT} {version('lock-worker')}".encode()
    assert worker.stop() == 0
    stage.redis.hset(maintenance, "layout", f"{LAYOUT + 1} 9.1")

    later = stage.start(**{name: shell.environment[name] for name in ("REDIS_URL", "LOCK_QUEUE")})

    assert later.process.wait(20) == 1
    (line,) = later.lines("redis_unfit")
    assert f"written by lock-worker 9.1 in layout {LAYOUT + 1}" in line["problem"]


def test_the_commands_work_on_a_cluster(stage: Stage, shell: Terminal) -> None:
    why = ("--reason", "a test")
    stage.redis.hset(Keys(QUEUE).counters, mapping={"taken": 1, "vanished": 1})
    for command in (
        ("status",), ("workers",), ("audit", "--acknowledge", *why), ("audit",), ("dead", "list"), ("holds",),
        ("adopt", "--list"), ("pause", *why), ("resume",), ("hold", "--rule", "r", *why), ("release", "--rule", "r"),
    ):  # fmt: skip
        ended = shell.run(*command)
        assert ended.returncode == 0, (command, ended.stderr)


def test_the_documented_user_can_do_all_that_a_worker_does_on_a_cluster(
    stage: Stage, shell: Terminal, cluster: RedisCluster, server_binary: ServerBinary
) -> None:
    (rules,) = re.findall(r"^ACL SETUSER lock-worker on >a-long-secret (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    commands = [rule for rule in rules_for(server_binary) if rule.startswith("+")]
    tagged = rules.replace("{moderation}", "{mod}").split()
    for server in cluster.servers:
        ask(server, "ACL SETUSER lock-worker reset on >secret", *commands, *tagged)
    shell.environment["REDIS_URL"] = f"redis+cluster://lock-worker:secret@{cluster.addresses}"

    start(stage, shell)
    assert_events(cluster, sent(shell, "c-1"))
    doctor = shell.run("doctor", "--json")
    with Celery("remote", broker=cluster.owner(QUEUE).url) as remote:
        remote.conf.broker_transport_options = {"global_keyprefix": "{mod}"}
        answer = remote.control.inspect(timeout=5, destination=[NAME]).ping()
    refusals = [refusal for server in cluster.servers for refusal in ask(server, "ACL LOG")]

    levels = {check["name"]: check["level"] for check in json.loads(doctor.stdout)["checks"]}
    assert levels["redis_permissions"] == "ok"
    assert answer == {NAME: {"ok": "pong"}}
    assert refusals == []
    for server in cluster.servers:
        ask(server, "ACL DELUSER lock-worker")


def test_a_slot_that_no_node_has_and_a_node_of_another_kind_are_told_with_the_fix(
    stage: Stage, shell: Terminal, cluster: RedisCluster, redis_server: RedisServer
) -> None:
    owner, slot = cluster.owner(QUEUE), key_slot(QUEUE.encode())
    alone = f"127.0.0.1:{redis_server.port}"

    no_cluster = shell.run("status", REDIS_URL=f"redis+cluster://{alone}")
    a_node = shell.run("status", REDIS_URL=owner.url)
    nobody = shell.run("status", REDIS_URL=f"redis+cluster://{NOBODY}")
    ended = stage.start(REDIS_URL=f"redis+cluster://{alone}", LOCK_QUEUE=QUEUE)
    for server in cluster.servers:
        ask(server, "CLUSTER DELSLOTS", slot)
    uncovered = shell.run("status")
    waiting = stage.start(REDIS_URL=shell.environment["REDIS_URL"], LOCK_QUEUE=QUEUE)
    eventually(lambda: waiting.lines("redis_unavailable"), "a worker that waits")
    ask(owner, "CLUSTER ADDSLOTS", slot)
    waiting.wait_ready()

    assert "no node of a cluster.\nLet REDIS_URL start with redis://" in no_cluster.stderr
    assert "there is a node of a Redis Cluster" in a_node.stderr
    assert "Let REDIS_URL start with redis+cluster://" in a_node.stderr
    assert "Connection refused" in nobody.stderr
    assert "redis-cli --cluster check" in uncovered.stderr
    assert ended.process.wait(20) == 1
    assert "no node of a cluster" in ended.lines("redis_unfit")[0]["problem"]
    assert f"no node of the cluster has slot {slot}" in waiting.lines("redis_unavailable")[0]["error"]
    assert stage.api.calls() == []
