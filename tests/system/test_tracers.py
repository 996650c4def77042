"""OpenTelemetry's Celery integration beside this worker: no wrong traces, and the producer's trace goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tests.system.celery_tools_page import rows
from tests.system.outside import install
from tests.system.stage import QUEUE, TASK, Stage, eventually, monitor

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
SPANS = "test:spans"
PRODUCER = f"""
from celery import Celery
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
CeleryInstrumentor().instrument()
app = Celery(broker={{url!r}})
with trace.get_tracer("producer").start_as_current_span("a rule fires") as span:
    print(f"{{{{span.get_span_context().trace_id:032x}}}}")
    app.send_task({TASK!r}, kwargs={{{{"conversation_id": "c-traced"}}}}, queue={QUEUE!r}, task_id="traced")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    packages = install("opentelemetry", tmp_path_factory.mktemp("opentelemetry"))
    return {"PYTHONPATH": f"{packages}:{ROOT}", "SPANS_KEY": SPANS}


def test_opentelemetry_makes_no_span_of_a_job(stage: Stage, environment: Mapping[str, str]) -> None:
    stage.api.script = Script(rules=(Rule(ids="missing*", then=Respond(status=404)),))
    stage.worker("-E", "--include", "tests.system.tracer", **environment)

    with monitor(stage.producer) as heard:
        for conversation in ("c-1", "missing-1", "c-2", "", "c-3"):
            last = stage.send(conversation)
        stage.wait_events(5)
        eventually(
            lambda: [event for event in list(heard) if event.get("uuid") == last and event["type"] == "task-succeeded"],
            "the end of the last job",
        )

    assert stage.redis.lrange(SPANS, 0, -1) == [b"the worker is ready"]


def test_the_trace_of_an_instrumented_producer_goes_on_in_the_call_and_the_event(
    stage: Stage, environment: Mapping[str, str]
) -> None:
    stage.worker()

    sent = subprocess.run(
        [sys.executable, "-c", PRODUCER.format(url=stage.redis_url)], env={**os.environ, **environment},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    event = stage.event_of("traced")
    (call,) = stage.api.calls()
    trace = sent.stdout.strip()
    assert event["traceparent"].split("-")[1] == trace
    assert str(call.traceparent).split("-")[1] == trace


def test_the_page_names_the_version_that_is_tried() -> None:
    told = rows("Tracers and Celery's signals")["OpenTelemetry's CeleryInstrumentor"]
    lock = (Path(__file__).parent / "outside" / "opentelemetry.lock").read_text("utf-8")

    assert f"opentelemetry-instrumentation-celery=={told.rpartition('Seen with ')[2]} " in lock
