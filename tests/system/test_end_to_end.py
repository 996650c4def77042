"""The main job: a job goes in, the conversation is locked, one event comes out."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tasks.event import ResultEvent
from tests.system.stage import QUEUE, RESULTS, TASK, eventually

if TYPE_CHECKING:
    from tests.system.stage import Stage

pytestmark = pytest.mark.parametrize("server_binary", ["redis", "valkey"], indirect=True)


def test_a_job_of_a_stock_celery_producer_locks_the_conversation_and_gives_one_event(stage: Stage) -> None:
    stage.worker()

    job = stage.send("c-1", fields={"rule_id": "spam-7", "metadata": {"score": 0.97}})

    (event,) = stage.wait_events(1)
    ResultEvent.model_validate_json(json.dumps(event))
    assert (event["id"], event["type"], event["subject"]) == (job, "conversation.locked", "c-1")
    assert event["data"]["outcome"] == "locked"
    assert event["data"]["attempts"] == 1
    assert event["data"]["job"] == {"conversation_id": "c-1", "rule_id": "spam-7", "metadata": {"score": 0.97}}
    assert event["data"]["conversation"]["locked"] is True
    assert event["data"]["error"] is None
    (call,) = stage.api.calls()
    assert call.idempotency_key == job
    stage.wait_idle()


def test_all_calls_of_a_job_without_an_id_carry_one_idempotency_key(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(first_calls=2, then=Respond(status=500, headers={"Retry-After": "2"})),))
    stage.worker()

    body = json.dumps([[], {"conversation_id": "c-1"}, {}])
    encoding = {"content-type": "application/json", "content-encoding": "utf-8"}
    stage.push(
        json.dumps({"headers": {"task": TASK}, **encoding, "properties": {"body_encoding": "utf-8"}, "body": body})
    )

    (event,) = stage.wait_events(1)
    assert event["data"]["outcome"] == "locked"
    calls = stage.api.calls()
    assert len(calls) == 3
    assert {call.idempotency_key for call in calls} == {event["data"]["job_id"]}


def test_the_event_goes_to_the_channel_as_well(stage: Stage) -> None:
    stage.worker()
    with stage.redis.pubsub() as listener:
        listener.subscribe(RESULTS)
        eventually(lambda: listener.get_message(timeout=1), "the subscription")

        job = stage.send()

        heard = eventually(lambda: listener.get_message(timeout=1), "the event on the channel")
    assert json.loads(heard["data"])["id"] == job
    assert json.loads(heard["data"]) == stage.event_of(job)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js on this machine")
def test_a_producer_in_another_language_that_knows_the_contract_gets_its_event(stage: Stage) -> None:
    stage.worker()
    script = """
        const [port, queue] = process.argv.slice(1);
        const body = Buffer.from(JSON.stringify([[], {conversation_id: 'c-js'}, {}])).toString('base64');
        const message = JSON.stringify({
          body, 'content-type': 'application/json', 'content-encoding': 'utf-8',
          headers: {id: 'from-node', task: 'moderation.lock_conversation'},
          properties: {body_encoding: 'base64'},
        });
        const words = ['LPUSH', queue, message];
        const socket = require('net').connect(Number(port), '127.0.0.1');
        socket.on('data', () => socket.end());
        socket.write(`*${words.length}\\r\\n` + words.map(w => `$${Buffer.byteLength(w)}\\r\\n${w}\\r\\n`).join(''));
    """

    port = str(urlsplit(stage.redis_url).port)
    subprocess.run([shutil.which("node") or "node", "-e", script, port, QUEUE], check=True, timeout=20)

    event = stage.event_of("from-node")
    assert event["data"]["outcome"] == "locked"
    assert event["subject"] == "c-js"


def test_jobs_wait_for_a_worker_and_are_worked_off_when_one_comes(stage: Stage) -> None:
    jobs = {stage.send(f"c-{number}") for number in range(300)}

    stage.worker(CONCURRENCY=20)

    assert {event["id"] for event in stage.wait_events(300)} == jobs
    stage.wait_idle()


def test_nothing_is_left_in_redis_but_what_the_glossary_names(stage: Stage) -> None:
    worker = stage.worker()
    stage.send("c-1")
    stage.send("missing-1")
    stage.push(b"junk")
    stage.wait_events(3)

    assert worker.stop() == 0

    assert stage.leftovers() == []
