"""Traces at a real OTLP/HTTP receiver: one for each job, whoever runs it, and no job that waits for the receiver."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.cli.terminal import Terminal
from tests.observe.otlp_receiver import OtlpReceiver, Span
from tests.system.operator import hold_all, release_all
from tests.system.stage import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.stage import Stage

PRODUCER_SPAN = "b7ad6b7169203331"
JOBS = 300


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


def traced(receiver: OtlpReceiver, **more: object) -> dict[str, object]:
    """The variables of a worker whose traces come soon."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": 20, **more}


def producers(number: int) -> str:
    """The context of a producer's span in a trace of its own."""
    return f"00-{number + 1:032x}-{PRODUCER_SPAN}-01"


def send(stage: Stage, conversation: str, traceparent: str | None = None, **options: Any) -> str:
    if traceparent is not None:
        options["headers"] = {"traceparent": traceparent}
    return stage.send(conversation, **options)


def of_job(receiver: OtlpReceiver, job: str) -> list[Span]:
    """The spans of a job's trace; the call's span does not name the job, the delivery's does."""
    (trace,) = {span.trace for span in receiver.spans() if span.attributes.get("messaging.message.id") == job}
    return [span for span in receiver.spans() if span.trace == trace]


def wait_published(receiver: OtlpReceiver, count: int) -> None:
    """Wait until so many jobs' last spans are there; the delivery's ends after the event's."""
    ended = {"locked", "refused", "exhausted", "would_lock", "expired", "rejected"}

    def is_over() -> bool:
        over = [span for span in receiver.spans("process ") if span.attributes["lock_worker.outcome"] in ended]
        return len(over) >= count

    eventually(is_over, f"the spans of {count} jobs")


def named(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name.startswith(name)]
    return found


def test_jobs_that_run_interleaved_have_each_a_trace_with_the_right_parents(
    stage: Stage, receiver: OtlpReceiver
) -> None:
    # given a slow API, so that many jobs run at once
    stage.api.script = Script(rules=(Rule(then=Delay(ms=30)),))
    stage.worker(**traced(receiver, OTEL_SERVICE_NAME="moderation-locks"))

    # when every second job comes with the context of a producer
    jobs = [send(stage, f"c-{number}", producers(number) if number % 2 else None) for number in range(JOBS)]
    events = {event["data"]["job_id"]: event for event in stage.wait_events(JOBS)}
    wait_published(receiver, JOBS)

    # then each is one trace of three spans, and what went out names them
    spans = receiver.spans()
    assert Counter(span.name for span in spans) == {
        "process moderation.lock": JOBS,
        "POST /conversations/{id}/lock": JOBS,
        "publish moderation.results": JOBS,
    }
    assert len({span.trace for span in spans}) == JOBS
    assert stage.api.stats()["peak_in_flight"] > 10
    sent = {call.conversation_id: call.traceparent for call in stage.api.calls()}
    for number, job in enumerate(jobs):
        its = of_job(receiver, job)
        process, call, publish = named(its, "process"), named(its, "POST"), named(its, "publish")
        assert (process.kind, call.kind, publish.kind) == ("consumer", "client", "producer")
        assert call.parent == publish.parent == process.id
        assert process.parent == (PRODUCER_SPAN if number % 2 else "")
        if number % 2:
            assert process.trace == producers(number).split("-")[1]
        assert sent[f"c-{number}"] == f"00-{call.trace}-{call.id}-01"
        assert events[job]["traceparent"] == f"00-{publish.trace}-{publish.id}-01"
        assert process.began_ns <= call.began_ns <= call.ended_ns <= publish.began_ns <= publish.ended_ns
        assert publish.ended_ns <= process.ended_ns
    (resource,) = {json.dumps(span.resource, sort_keys=True) for span in spans}
    assert json.loads(resource)["service.name"] == "moderation-locks"


def test_a_job_that_two_workers_run_is_one_trace(stage: Stage, receiver: OtlpReceiver) -> None:
    # given a worker that is stopped while a job waits in Redis for its second call
    stage.api.script = Script(rules=(Rule(nth_call=1, then=Respond(status=500, headers={"Retry-After": "2"})),))
    first = stage.worker(**traced(receiver))
    job = send(stage, "c-1")
    eventually(lambda: stage.redis.zcard(stage.keys.delayed), "a job that waits")
    assert first.stop() == 0

    # when another one runs it
    stage.worker(**traced(receiver))
    event = stage.event_of(job)
    wait_published(receiver, 1)

    # then the first delivery is the root, the second its child, and each call is in its own delivery
    spans = of_job(receiver, job)
    assert spans == receiver.spans()
    one, two = [span for span in spans if span.kind == "consumer"]
    assert (one.parent, two.parent) == ("", one.id)
    assert [span.attributes["lock_worker.delivery"] for span in (one, two)] == [1, 2]
    assert [span.attributes["lock_worker.outcome"] for span in (one, two)] == ["delayed", "locked"]
    assert len({span.resource["service.instance.id"] for span in (one, two)}) == 2
    calls = [span for span in spans if span.kind == "client"]
    assert [call.parent for call in calls] == [one.id, two.id]
    assert [call.attributes["http.response.status_code"] for call in calls] == [500, 200]
    assert [call.is_error for call in calls] == [True, False]
    assert event["traceparent"].split("-")[1:3] == [one.trace, named(spans, "publish").id]
    assert [call.traceparent for call in stage.api.calls()] == [f"00-{call.trace}-{call.id}-01" for call in calls]


def test_calls_of_one_delivery_are_counted_and_the_spans_of_a_failed_job_tell_why(
    stage: Stage, receiver: OtlpReceiver
) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=500)),))
    stage.worker(**traced(receiver, MAX_ATTEMPTS=3))

    job = send(stage, "c-1", fields={"rule_id": "spam-7", "reason": "a secret reason"})
    stage.event_of(job)
    wait_published(receiver, 1)

    spans = of_job(receiver, job)
    calls = [span for span in spans if span.kind == "client"]
    assert [call.attributes.get("http.request.resend_count") for call in calls] == [None, 1, 2]
    assert {call.attributes["error.type"] for call in calls} == {"500"}
    last = [span for span in spans if span.kind == "consumer"][-1]
    assert last.is_error
    assert last.attributes["error.type"] == "server_error"
    assert last.attributes["lock_worker.attempts"] == 3
    assert last.attributes["lock_worker.outcome"] == "exhausted"
    assert last.attributes["lock_worker.rule_id"] == "spam-7"
    for span in spans:
        for private in (b"secret", b"c-1", b"sandbox-token"):
            assert private not in span.raw


def test_a_job_with_an_eta_and_a_replayed_one_begin_traces_with_a_link_to_the_producers(
    stage: Stage, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    # given a job for later, which fails
    stage.api.script = Script(rules=(Rule(then=Respond(status=403)),))
    stage.worker(**traced(receiver))
    late = send(stage, "c-1", producers(7), countdown=1)
    stage.event_of(late)
    wait_published(receiver, 1)

    # when it is replayed
    stage.api.script = Script()
    shell = Terminal({"REDIS_URL": stage.redis_url}, tmp_path)
    (replayed,) = shell.run("replay", late).stdout.split()
    event = stage.event_of(replayed)
    wait_published(receiver, 2)

    # then each has a trace of its own, and every delivery in it is linked
    traces = {job: of_job(receiver, job) for job in (late, replayed)}
    for spans in traces.values():
        deliveries = [span for span in spans if span.kind == "consumer"]
        assert deliveries[0].parent == ""
        assert all(span.links == ((producers(7).split("-")[1], PRODUCER_SPAN),) for span in deliveries)
        assert all(span.parent == deliveries[0].id for span in deliveries[1:])
    one, two = [span for span in traces[late] if span.kind == "consumer"]
    assert one.attributes["lock_worker.wait.reason"] == "eta"
    assert (one.attributes["lock_worker.delivery"], two.attributes["lock_worker.delivery"]) == (1, 2)
    assert traces[late][0].trace != traces[replayed][0].trace
    assert event["traceparent"].split("-")[1] == traces[replayed][0].trace


def test_a_job_that_was_on_hold_is_one_trace_and_each_delivery_has_its_number(
    stage: Stage, receiver: OtlpReceiver
) -> None:
    hold_all(stage)
    stage.worker(**traced(receiver))
    job = send(stage, "c-1", producers(7))
    eventually(lambda: stage.redis.zcard(stage.keys.held), "a job on hold")

    release_all(stage)
    stage.event_of(job)
    wait_published(receiver, 1)

    one, two = [span for span in of_job(receiver, job) if span.kind == "consumer"]
    assert (one.attributes["lock_worker.delivery"], two.attributes["lock_worker.delivery"]) == (1, 2)


def test_the_producers_decision_not_to_sample_is_kept_and_its_tracestate_goes_along(
    stage: Stage, receiver: OtlpReceiver
) -> None:
    stage.worker(**traced(receiver))
    headers = {"tracestate": "rojo=1"}
    silent = stage.send("c-1", headers={"traceparent": producers(1).replace("-01", "-00"), **headers})
    stage.event_of(silent)
    loud = stage.send("c-2", headers={"traceparent": producers(2), **headers})
    event = stage.event_of(loud)
    wait_published(receiver, 1)

    assert {span.trace for span in receiver.spans()} == {producers(2).split("-")[1]}
    assert {span.state for span in receiver.spans()} == {"rojo=1"}
    assert event["tracestate"] == "rojo=1"
    assert [(call.traceparent or "")[-2:] for call in stage.api.calls()] == ["00", "01"]


def test_a_sampler_of_nothing_records_nothing(stage: Stage, receiver: OtlpReceiver) -> None:
    worker = stage.worker(**traced(receiver, OTEL_TRACES_SAMPLER="parentbased_always_off"))
    event = stage.event_of(send(stage, "c-1"))
    assert worker.stop() == 0

    assert receiver.spans() == []
    assert event["traceparent"].endswith("-00")


def test_a_message_that_is_no_job_has_a_trace_too_and_a_duplicate_publishes_nothing(
    stage: Stage, receiver: OtlpReceiver
) -> None:
    worker = stage.worker(**traced(receiver))
    stage.push(b"no job")
    stage.wait_events(1)
    send(stage, "c-1", task_id="job-1")
    stage.wait_events(2)
    send(stage, "c-1", task_id="job-1")
    stage.wait_idle()
    assert worker.stop() == 0

    outcomes = Counter(span.attributes["lock_worker.outcome"] for span in receiver.spans("process "))
    assert outcomes == {"rejected": 1, "locked": 1, "duplicate": 1}
    assert len(receiver.spans("publish ")) == 2


@pytest.mark.parametrize("trouble", ["away", "refuses", "slow"])
def test_no_job_waits_for_a_receiver_in_trouble_and_the_worker_stops_in_time(
    stage: Stage, receiver: OtlpReceiver, trouble: str
) -> None:
    # given a receiver that does not take a span
    settings = traced(receiver, OTEL_BSP_MAX_QUEUE_SIZE=512)
    match trouble:
        case "away":
            settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
        case "refuses":
            receiver.status = 400
        case "slow":
            receiver.may_answer.clear()
    worker = stage.worker(**settings)

    # when more jobs are done than spans may wait
    for number in range(JOBS):
        send(stage, f"c-{number}")
    stage.wait_events(JOBS)
    eventually(lambda: worker.lines("traces_not_exported"), "a line on the trouble")

    # then the log has one line on it, and the worker stops within SHUTDOWN_SECONDS
    begun = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - begun < 5
    assert len(worker.lines("traces_not_exported")) == 1
    left = sum(line["spans"] for line in worker.lines("traces_left_behind"))
    assert (left > 0) is (trouble == "slow") or trouble == "away"
    assert "Transient error" not in worker.log
    assert "Traceback" not in worker.log


def test_the_last_spans_of_a_worker_are_out_before_it_ends(stage: Stage, receiver: OtlpReceiver) -> None:
    worker = stage.worker(**traced(receiver, OTEL_BSP_SCHEDULE_DELAY=60_000))
    stage.event_of(send(stage, "c-1"))
    assert receiver.spans() == []

    assert worker.stop() == 0

    assert len(receiver.spans()) == 3


BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_without_opentelemetry_a_worker_works_and_says_what_to_install_if_it_was_asked_for(
    stage: Stage, receiver: OtlpReceiver, tmp_path: Path, *, is_asked_for: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    worker = stage.worker(PYTHONPATH=tmp_path, **(traced(receiver) if is_asked_for else {}))

    event = stage.event_of(send(stage, "c-1"))

    assert event["data"]["outcome"] == "locked"
    assert event["traceparent"].endswith("-00")
    lines = worker.lines("tracing_off")
    assert [line["level"] for line in lines] == (["warning"] if is_asked_for else [])
    assert all("lock-worker[otel]" in line["problem"] for line in lines)
    assert receiver.requests == 0


def test_a_variable_that_opentelemetry_refuses_does_not_keep_a_worker_from_working(
    stage: Stage, receiver: OtlpReceiver
) -> None:
    worker = stage.worker(**traced(receiver, OTEL_BSP_MAX_EXPORT_BATCH_SIZE=100_000))

    assert stage.event_of(send(stage, "c-1"))["data"]["outcome"] == "locked"

    (line,) = worker.lines("tracing_off")
    assert "max_export_batch_size" in line["problem"]
    assert "OTEL_" in line["problem"]
