"""Flower beside this worker: each row of ``docs/celery-tools.md`` about its pages."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond
from sandbox.redis_server import RedisServer
from sandbox.script import Rule, Script
from tests.system.celery_tools_page import quoted, rows
from tests.system.outside import install
from tests.system.stage import QUEUE, Stage, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.server_binaries import ServerBinary

NAME = "lock-1@test"
PRIVATE = "what a person wrote"
ROWS = rows("Flower")


class Flower:
    """A Flower that runs, as a browser sees it."""

    def __init__(self, url: str, stage: Stage) -> None:
        self._url = url
        self.stage = stage

    def ask(self, path: str, *, post: bool = False) -> str:
        """The answer to a request, whatever its status."""
        request = urllib.request.Request(self._url + path, data=b"" if post else None)  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - as above
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return f"{error.code}: {error.read().decode()}"

    def page(self, path: str) -> str:
        """The text of a page."""
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.ask(path))).split())

    def tasks(self) -> dict[str, dict[str, Any]]:
        """What it knows of jobs, by their ids."""
        found: dict[str, dict[str, Any]] = json.loads(self.ask("/api/tasks"))
        return found

    def wait_task(self, job: str, state: str) -> dict[str, Any]:
        """Wait until it shows a job in this state."""
        return dict(
            eventually(
                lambda: (found := self.tasks().get(job)) and found["state"] == state and found, f"{job} as {state}"
            )
        )


@contextmanager
def running(stage: Stage, packages: Path) -> Iterator[Flower]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(packages), "FLOWER_UNAUTHENTICATED_API": "true"}
    program = [sys.executable, "-m", "celery", "-b", stage.redis_url, "flower", "--address=127.0.0.1", f"--port={port}"]
    log = stage.folder / "flower.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(program, env=environment, cwd=stage.folder, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            flower = Flower(f"http://127.0.0.1:{port}", stage)

            def answers() -> bool:
                assert process.poll() is None, log.read_text("utf-8")
                try:
                    return flower.ask("/healthcheck") == "OK"
                except OSError:
                    return False

            eventually(answers, "Flower", 60)
            yield flower
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def flower(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """Flower and a worker that was started without ``-E``."""
    packages = install("flower", tmp_path_factory.mktemp("flower"))
    with RedisServer(server_binary) as server, Stage(server.url, tmp_path_factory.mktemp("stage")) as stage:
        stage.api.script = Script(
            rules=(
                Rule(ids="missing*", then=Respond(status=404)),
                Rule(ids="later*", first_calls=1, then=Respond(status=500, headers={"Retry-After": "2"})),
                Rule(ids="slow*", then=Delay(ms=3000)),
            )
        )
        stage.worker("-n", NAME, CONCURRENCY=5, ATTEMPT_TIMEOUT_SECONDS=4)
        with running(stage, packages) as found:
            eventually(lambda: "enabled by remote" in stage.workers[0].log, "events that Flower has switched on")
            yield found


@pytest.fixture(autouse=True)
def worker_page(flower: Flower) -> None:
    """Flower knows the worker's answers."""
    flower.stage.wait_idle()
    flower.stage.api.reset()
    eventually(lambda: "stats" in json.loads(flower.ask("/api/workers?refresh=1")).get(NAME, {}), "the worker")


def assert_quotes(row: str, page: str) -> None:
    sentences = quoted(ROWS[row])
    assert sentences
    for sentence in sentences:
        assert sentence in page


def test_the_workers_page_shows_who_is_online(flower: Flower) -> None:
    assert NAME in flower.page("/workers")
    assert eventually(lambda: json.loads(flower.ask("/api/workers?status=true")).get(NAME), "a worker that is online")


def test_slots_are_shown_and_changed(flower: Flower) -> None:
    flower.ask(f"/api/worker/pool/grow/{NAME}?n=2", post=True)
    page = eventually(lambda: "Max concurrency 7" in (text := flower.page(f"/worker/{NAME}")) and text, "seven slots")
    assert "Prefetch Count 7" in page
    flower.ask(f"/api/worker/pool/shrink/{NAME}?n=2", post=True)
    page = eventually(lambda: "Max concurrency 5" in (text := flower.page(f"/worker/{NAME}")) and text, "five slots")

    refused = flower.ask(f"/api/worker/pool/autoscale/{NAME}?min=1&max=2", post=True)
    assert "there is no process to restart" in flower.ask(f"/api/worker/pool/restart/{NAME}", post=True)
    assert_quotes("Worker, Pool", page + refused)


def test_queues_are_added_and_cancelled(flower: Flower) -> None:
    for action in ("add-consumer", "cancel-consumer"):
        answer = flower.ask(f"/api/worker/queue/{action}/{NAME}?queue=another", post=True)
        assert answer in ('{"message": "add consumer another"}', '{"message": "no longer consuming from another"}')


def test_the_workers_tasks_are_the_jobs_in_flight(flower: Flower) -> None:
    flower.stage.producer.control.revoke("revoked-1", destination=[NAME], reply=True, timeout=10)
    job = flower.stage.send("slow-1", fields={"rule_id": "r-7", "reason": PRIVATE})
    eventually(flower.stage.api.calls, "the call")

    def both() -> str | None:
        text = flower.page(f"/worker/{NAME}")
        return text if job in text and "revoked-1" in text else None

    page = eventually(both, "the job and the revoked id on the page")
    assert "{'conversation_id': 'slow-1', 'rule_id': 'r-7'}" in page
    assert "Scheduled tasks Name UUID args kwargs Reserved tasks Name UUID args kwargs Revoked tasks" in page
    assert PRIVATE not in page
    assert_quotes("Worker, Tasks", page)


def test_limits_have_no_effect(flower: Flower) -> None:
    for path in ("rate-limit", "timeout"):
        answer = flower.ask(
            f"/api/task/{path}/moderation.lock_conversation?workername={NAME}&hard=1&ratelimit=1/s", post=True
        )
        assert_quotes("Worker, Limits", answer)


def test_jobs_are_shown_with_their_own_fields_and_how_they_ended(flower: Flower) -> None:
    stage = flower.stage
    stage.producer.control.revoke("revoked-2", destination=[NAME], reply=True, timeout=10)
    fields = {"rule_id": "r-7", "actor": "a-service", "reason": PRIVATE, "metadata": {"note": PRIVATE}}
    locked, dry = stage.send("c-1", fields=fields), stage.send("c-2", fields={"dry_run": True})
    refused, retried, expired = stage.send("missing-1"), stage.send("later-1"), stage.send("c-3", expires=-1)
    stage.send("c-4", task_id="revoked-2")
    rejected, delayed = stage.send(""), stage.send("c-5", countdown=600)

    assert flower.wait_task(locked, "SUCCESS")["result"] == "locked"
    kwargs = flower.tasks()[locked]["kwargs"]
    assert kwargs == "{'conversation_id': 'c-1', 'rule_id': 'r-7', 'actor': 'a-service'}"
    assert flower.wait_task(dry, "SUCCESS")["result"] == "would_lock"
    assert flower.wait_task(expired, "SUCCESS")["result"] == "expired"
    assert flower.wait_task(refused, "FAILURE")["exception"].startswith(
        "LockFailedError('refused: The API knows no such"
    )
    assert flower.wait_task(retried, "SUCCESS")["retries"] == 1
    assert flower.wait_task("revoked-2", "REVOKED")["name"] == "moderation.lock_conversation"
    assert not {rejected, delayed} & flower.tasks().keys()
    assert PRIVATE not in flower.ask("/api/tasks")
    page = flower.page(f"/task/{locked}")
    assert f"Keyword arguments {kwargs} Result locked" in page
    assert flower.ask(f"/api/task/result/{locked}").startswith("503")

    stage.send("c-1", task_id=locked)
    eventually(lambda: flower.tasks()[locked]["kwargs"] == "{'conversation_id': 'c-1'}", "the copy")
    assert (flower.tasks()[locked]["state"], flower.tasks()[locked]["result"]) == ("SUCCESS", "locked")
    stage.redis.delete(stage.keys.delayed, *stage.redis.scan_iter(f"{stage.keys.record_prefix}*"))


def test_a_job_is_terminated(flower: Flower) -> None:
    job = flower.stage.send("slow-2")
    flower.wait_task(job, "STARTED")

    flower.ask(f"/api/task/revoke/{job}?terminate=true", post=True)

    assert flower.stage.outcome_of(job) == "revoked"
    flower.wait_task(job, "REVOKED")


def test_the_broker_page_counts_what_no_worker_has_taken(flower: Flower) -> None:
    stage = flower.stage
    stage.producer.control.pool_shrink(4, destination=[NAME], reply=True, timeout=10)
    stage.send("c-1", countdown=600)
    eventually(lambda: stage.redis.zcard(stage.keys.delayed), "a delayed job")
    stage.send("slow-4")
    eventually(stage.api.calls, "the call")
    for _ in range(3):
        stage.send("c-2")

    assert json.loads(flower.ask("/api/queues/length")) == {"active_queues": [{"name": QUEUE, "messages": 3}]}
    page = flower.page("/broker")
    assert f"{QUEUE} 3 " in page
    assert_quotes("Broker", page)
    stage.producer.control.pool_grow(4, destination=[NAME], reply=True, timeout=10)
    stage.redis.delete(stage.keys.delayed, *stage.redis.scan_iter(f"{stage.keys.record_prefix}*"))


def test_shut_down_stops_the_worker_as_sigterm_does(flower: Flower) -> None:
    stage = flower.stage
    job = stage.send("slow-3")
    eventually(stage.api.calls, "the call")

    flower.ask(f"/api/worker/shutdown/{NAME}", post=True)

    assert stage.workers[0].process.wait(20) == 0
    assert stage.outcome_of(job) == "locked"


def test_the_page_is_about_the_version_that_is_tried() -> None:
    page = (Path(__file__).parents[2] / "docs" / "celery-tools.md").read_text("utf-8")
    (version,) = re.findall(r"^Flower ([\d.]+),", page, re.MULTILINE)

    assert f"flower=={version} " in (Path(__file__).parent / "outside" / "flower.lock").read_text("utf-8")
