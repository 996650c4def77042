"""The spans of a job: whose children they are, who decides if they are recorded, and what they tell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, ParentBasedTraceIdRatio, Sampler
from opentelemetry.trace import format_span_id, format_trace_id

from tasks.job import Job
from tasks.message import Accepted
from tasks.outcome import Locked, Problem, ProblemType
from tasks.progress import Progress
from tasks.verdict import Retryable
from worker.broker.records import Delivery
from worker.observe.tracing.sampling import JobIds, LinkedSampler
from worker.observe.tracing.spans import Spans, span_names

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
SOON = datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
FAILED = Retryable(Problem(ProblemType.SERVER_ERROR, "a sentence of the API's", 503))
LOCKED = Locked({"id": "c-1", "locked": True}, None)


class Recorder:
    """A worker's spans, kept in memory as soon as they end."""

    def __init__(self, sampler: Sampler = DEFAULT_ON) -> None:
        self._kept = InMemorySpanExporter()
        ids = JobIds()
        provider = TracerProvider(sampler=LinkedSampler(sampler), id_generator=ids, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        names = span_names("https://api.example/v1", "moderation.results")
        self.spans = Spans(provider.get_tracer("test"), provider.sampler, ids, names)

    def run(self, job: Accepted, delivery: Delivery, outcome: str = "locked", **how: Any) -> list[str]:
        """One delivery with one call and, unless it is delayed, an event; the headers that went out."""
        trace = self.spans.begin(job, delivery)
        sent = [trace.call_begins()]
        trace.call_ended(200 if outcome == "locked" else 503, LOCKED if outcome == "locked" else FAILED)
        if outcome != "delayed":
            sent.append(trace.of_event().traceparent)
        trace.ended(outcome, attempts=1, **how)
        return sent

    def ended(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self._kept.get_finished_spans() if span.name.startswith(name)]


def job(**changes: Any) -> Accepted:
    fields: dict[str, Any] = {
        "conversation_id": "c-private",
        "rule_id": "r-1",
        "reason": "a secret reason",
        "actor": "someone",
    }
    usual: dict[str, Any] = {
        "id": "job-1", "fingerprint": "c-private", "job": Job(**fields), "received_fields": fields,
        "not_before": None, "expires_at": None, "traceparent": None, "replay_of": None, "ignored": (),
    }  # fmt: skip
    return Accepted(**{**usual, **changes})


def delivery(ref: str = "pod-1.7.1.1", **changes: Any) -> Delivery:
    usual: dict[str, Any] = {
        "ref": ref, "lease_token": "pod-1.7", "raw": b"", "size": 300, "received_ms": 0, "attempts": 0, "crashes": 0,
        "lease_until": 0.0, "queue": "moderation.lock",
    }  # fmt: skip
    return Delivery(**{**usual, **changes})


LATER: dict[str, Any] = {"lease_token": "pod-2.3", "progress": Progress(deliveries=1).to_bytes(), "attempts": 1}


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else format_span_id(span.parent.span_id)


def test_only_the_first_delivery_has_a_name_that_its_own_take_made() -> None:
    assert delivery().is_first
    assert not delivery(ref="pod-1.71.1.1").is_first
    assert not delivery(lease_token="pod-2.3").is_first


def test_each_delivery_is_a_child_of_the_producers_span() -> None:
    recorder = Recorder()

    recorder.run(job(traceparent=SAMPLED, tracestate="rojo=1"), delivery(), "delayed")
    recorder.run(job(traceparent=SAMPLED, tracestate="rojo=1"), delivery(**LATER))

    first, second = recorder.ended("process ")
    assert {ids(span)[0] for span in recorder.ended()} == {TRACE}
    assert parent(first) == parent(second) == SPAN
    for span in recorder.ended():
        assert span.context is not None
        assert span.context.trace_state.to_header() == "rojo=1"


def test_without_a_producers_span_the_first_delivery_is_the_root_and_the_later_ones_are_its_children() -> None:
    recorder = Recorder()

    recorder.run(job(), delivery(), "delayed")
    recorder.run(job(), delivery(**LATER))

    first, second = recorder.ended("process ")
    assert parent(first) is None
    assert parent(second) == ids(first)[1]
    assert len({ids(span)[0] for span in recorder.ended()}) == 1


@pytest.mark.parametrize("changes", [{"not_before": SOON}, {"replay_of": "job-0"}], ids=["eta", "replay"])
def test_a_job_that_runs_later_than_it_was_sent_begins_a_trace_with_a_link(changes: dict[str, Any]) -> None:
    recorder = Recorder()
    late = job(traceparent=SAMPLED, tracestate="rojo=1", **changes)

    begun = recorder.spans.begin(late, delivery())
    begun.ended("delayed", attempts=0, reason="eta", seconds=60)
    sent = recorder.run(late, delivery(**LATER))

    first, second = recorder.ended("process ")
    assert [parent(first), parent(second)] == [None, ids(first)[1]]
    assert {ids(span)[0] for span in recorder.ended()} == {header.split("-")[1] for header in sent} != {TRACE}
    assert begun.state is None, "it belongs to the producer's trace"
    for span in (first, second):
        (link,) = span.links
        assert (format_trace_id(link.context.trace_id), format_span_id(link.context.span_id)) == (TRACE, SPAN)
        assert link.context.trace_state.to_header() == "rojo=1"


@pytest.mark.parametrize("changes", [{}, {"not_before": SOON}, {"replay_of": "job-0"}], ids=["child", "eta", "replay"])
def test_what_the_producer_does_not_sample_is_not_recorded_and_what_goes_out_says_so(changes: dict[str, Any]) -> None:
    recorder = Recorder()
    unsampled = job(traceparent=NOT_SAMPLED, **changes)

    sent = [*recorder.run(unsampled, delivery(), "delayed"), *recorder.run(unsampled, delivery(**LATER))]

    assert recorder.ended() == []
    assert [header.rpartition("-")[2] for header in sent] == ["00"] * 3


@pytest.mark.parametrize("changes", [{}, {"not_before": SOON, "traceparent": SAMPLED}], ids=["plain", "eta"])
def test_all_deliveries_of_a_job_are_recorded_or_none_whichever_the_worker(changes: dict[str, Any]) -> None:
    kept = set()
    for number in range(50):
        ref = f"pod-1.7.1.{number}"
        begun = [Recorder(ParentBasedTraceIdRatio(0.5)) for _ in range(3)]  # three workers
        headers = [
            *begun[0].run(job(**changes), delivery(ref), "delayed"),
            *begun[1].run(job(**changes), delivery(ref, **LATER), "delayed"),
            *begun[2].run(job(**changes), delivery(ref, **LATER)),
        ]
        flags = {header.rpartition("-")[2] for header in headers}
        assert len(flags) == 1
        assert {bool(recorder.ended()) for recorder in begun} == {flags == {"01"}}
        kept |= flags
    assert kept == ({"01"} if changes else {"00", "01"})


def test_a_sampler_that_asks_no_parent_is_obeyed() -> None:
    recorder = Recorder(ALWAYS_ON)

    (sent, _) = recorder.run(job(traceparent=NOT_SAMPLED), delivery())

    assert sent.endswith("-01")
    assert len(recorder.ended()) == 3


def test_what_goes_out_names_spans_that_are_recorded() -> None:
    recorder = Recorder()

    sent = recorder.run(job(), delivery())

    (call,), (publish,) = recorder.ended("POST "), recorder.ended("publish ")
    assert sent == [f"00-{'-'.join(ids(span))}-01" for span in (call, publish)]
    (process,) = recorder.ended("process ")
    assert parent(call) == parent(publish) == ids(process)[1]


def test_a_calls_span_tells_which_call_of_the_job_it_is_and_how_it_was_answered() -> None:
    recorder = Recorder()
    trace = recorder.spans.begin(job(), delivery(**LATER))

    for status, verdict in ((503, FAILED), (None, FAILED), (200, FAILED), (200, LOCKED)):
        trace.call_begins()
        trace.call_ended(status, verdict)
    trace.ended("locked", attempts=5)

    told = [(span.attributes or {}, span.status.is_ok or span.status.is_unset) for span in recorder.ended("POST ")]
    counted = [attributes["http.request.resend_count"] for attributes, _ in told]
    assert counted == [1, 2, 3, 4]
    assert [attributes.get("http.response.status_code") for attributes, _ in told] == [503, None, 200, 200]
    assert [attributes.get("error.type") for attributes, _ in told] == ["503", "server_error", "server_error", None]
    assert [is_fine for _, is_fine in told] == [False, False, False, True]


def test_a_call_that_was_cancelled_ends_with_its_delivery() -> None:
    recorder = Recorder()
    trace = recorder.spans.begin(job(), delivery())
    trace.call_begins()

    trace.ended("released", attempts=1)

    call, process = recorder.ended()
    assert (call.attributes or {})["error.type"] == "interrupted"
    assert (process.attributes or {})["lock_worker.outcome"] == "released"


def test_an_event_that_was_not_published_has_no_span() -> None:
    for outcome in ("duplicate", "lease_lost", "released"):
        recorder = Recorder()
        recorder.run(job(), delivery(), outcome)
        assert recorder.ended("publish ") == []
        assert len(recorder.ended("process ")) == 1


def test_an_event_is_made_once_however_often_it_is_asked_for() -> None:
    recorder = Recorder()
    trace = recorder.spans.begin(job(), delivery())

    assert trace.of_event() == trace.of_event()


def test_a_delay_tells_why_and_how_long() -> None:
    recorder = Recorder()

    recorder.run(job(), delivery(), "delayed", error="server_error", reason="server_error", seconds=1.23456)

    (process,) = recorder.ended("process ")
    attributes = process.attributes or {}
    assert attributes["lock_worker.wait.reason"] == attributes["error.type"] == "server_error"
    assert attributes["lock_worker.wait.seconds"] == 1.235
    assert not process.status.is_ok


def test_the_number_of_a_delivery_counts_delays_and_workers_that_died() -> None:
    numbers = []
    for known, crashes in ((0, 0), (1, 0), (1, 1), (2, 1)):
        begun = Recorder().spans.begin(job(), delivery(progress=Progress(deliveries=known).to_bytes(), crashes=crashes))
        numbers.append(begun.number)
    assert numbers == [1, 2, 3, 4]


def test_no_span_tells_of_a_conversation_a_reason_or_a_person() -> None:
    recorder = Recorder()

    recorder.run(job(), delivery(), "delayed", error="server_error", reason="server_error", seconds=1.0)
    recorder.run(job(), delivery(**LATER))

    told = " ".join(span.to_json() for span in recorder.ended())
    for private in ("c-private", "a secret reason", "someone", "a sentence of the API's"):
        assert private not in told
    (call, *_) = recorder.ended("POST ")
    assert call.name == "POST /v1/conversations/{id}/lock"
    attributes = call.attributes or {}
    assert attributes["url.full"] == "https://api.example/v1/conversations/REDACTED/lock"
    assert (attributes["server.address"], attributes["server.port"]) == ("api.example", 443)
