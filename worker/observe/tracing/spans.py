"""The spans of a job: one for each delivery, and in it one for each call and one for the event.

Where a producer's context came with the job, each delivery is a child of it. A job that runs later than it was sent (an
``eta``, a replay) begins a trace of its own, with a link to the producer's. A trace that begins here has its ids from
the job's name, so that all workers find it: the span of the first delivery is its root, and the parent of the later
ones.

Nothing of a conversation is recorded, not even its id: the job's id leads to it in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from tasks import progress
from tasks.message import Accepted
from tasks.outcome import Locked
from tasks.trace import Trace, ids_of
from worker.observe.tracing import semconv
from worker.observe.tracing.sampling import under

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from tasks.message import ParsedJob
    from tasks.verdict import Verdict
    from worker.broker.records import Delivery
    from worker.observe.tracing.sampling import JobIds

_SYSTEM: Final = "redis"
_METHOD: Final = "POST"
_HTTP_ERROR: Final = 400
_INTERRUPTED: Final = "interrupted"
#: The event of a job that was settled elsewhere may be out: that of an answer of Redis which was lost.
_MAY_BE_PUBLISHED: Final = "settled_elsewhere"
_NOT_PUBLISHED: Final = frozenset({"duplicate", "delayed", "released", "lease_lost"})


@dataclass(frozen=True, slots=True)
class SpanNames:
    """What the spans of all jobs have in common.

    Attributes:
        call: the name of a call's span; without the conversation's id, so that all calls have the same.
        call_attributes: the attributes of each call's span.
        results: the stream that events are published to.
    """

    call: str
    call_attributes: dict[str, AttributeValue]
    results: str


def span_names(api_url: str, results: str) -> SpanNames:
    """Return the names for an API and a stream of results."""
    url = urlsplit(api_url)
    template = f"{url.path.rstrip('/')}/conversations/{{id}}/lock"
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    attributes: dict[str, AttributeValue] = {
        semconv.HTTP_REQUEST_METHOD: _METHOD,
        semconv.SERVER_ADDRESS: host,
        semconv.SERVER_PORT: port,
        semconv.URL_FULL: f"{url.scheme}://{url.netloc}{template.replace('{id}', 'REDACTED')}",
        semconv.URL_TEMPLATE: template,
    }
    return SpanNames(f"{_METHOD} {template}", attributes, results)


class DeliverySpans:
    """The spans of one delivery. It is the job's trace as the handler knows it (``tasks.trace.JobTrace``).

    Attributes:
        state: the producer's ``tracestate``, where the trace is the producer's.
        number: which delivery of the job this is, from 1.
    """

    def __init__(
        self, tracer: Tracer, names: SpanNames, span: Span, *, job: str, state: str | None, number: int, calls: int
    ) -> None:
        self.state: Final = state
        self.number: Final = number
        self._tracer = tracer
        self._names = names
        self._span = span
        self._job = job
        self._context = set_span_in_context(span, Context())
        self._calls = calls
        self._call: Span | None = None
        self._publish: Span | None = None

    def call_begins(self) -> str:
        """Begin the span of a call, and return its ``traceparent``."""
        attributes = self._names.call_attributes
        if self._calls:
            attributes = {**attributes, semconv.HTTP_REQUEST_RESEND_COUNT: self._calls}
        self._calls += 1
        self._call = self._tracer.start_span(self._names.call, self._context, SpanKind.CLIENT, attributes)
        return _trace(self._call, None).traceparent

    def call_ended(self, status: int | None, verdict: Verdict) -> None:
        """End the span of the call."""
        problem = None if isinstance(verdict, Locked) else verdict.problem.type.value
        self._end_call(status, str(status) if status is not None and status >= _HTTP_ERROR else problem)

    def of_event(self) -> Trace:
        """Begin the span that publishes the event, if it has not begun, and return its context."""
        if self._publish is None:
            attributes = _messaging("publish", "send", self._names.results, self._job)
            name = f"publish {self._names.results}"
            self._publish = self._tracer.start_span(name, self._context, SpanKind.PRODUCER, attributes)
        return _trace(self._publish, self.state)

    def ended(
        self,
        outcome: str,
        *,
        attempts: int,
        error: str | None = None,
        reason: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """End all spans of the delivery.

        Args:
            outcome: the event's, or how else the job left this worker.
            attempts: calls made for the job that count, in all deliveries.
            error: what went wrong; None: nothing.
            reason: why the job waits, if it does.
            seconds: how long it waits, if it does.
        """
        if self._call is not None:
            self._end_call(None, _INTERRUPTED)
        if self._publish is not None and outcome not in _NOT_PUBLISHED:
            self._publish.set_attribute(semconv.OUTCOME, outcome)
            if outcome == _MAY_BE_PUBLISHED:
                _fail(self._publish, outcome)
            self._publish.end()
        self._span.set_attribute(semconv.OUTCOME, outcome)
        self._span.set_attribute(semconv.ATTEMPTS, attempts)
        if reason is not None and seconds is not None:
            self._span.set_attribute(semconv.WAIT_REASON, reason)
            self._span.set_attribute(semconv.WAIT_SECONDS, round(seconds, 3))
        if error is not None:
            _fail(self._span, error)
        self._span.end()

    def _end_call(self, status: int | None, error: str | None) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        if status is not None:
            call.set_attribute(semconv.HTTP_RESPONSE_STATUS_CODE, status)
        if error is not None:
            _fail(call, error)
        call.end()


class Spans:
    """Begins the spans of deliveries.

    Args:
        tracer: records spans.
        sampler: the tracer's.
        ids: the tracer's.
        names: what the spans of all jobs have in common.
    """

    def __init__(self, tracer: Tracer, sampler: Sampler, ids: JobIds, names: SpanNames) -> None:
        self._tracer = tracer
        self._sampler = sampler
        self._ids = ids
        self._names = names

    def begin(self, job: ParsedJob, delivery: Delivery) -> DeliverySpans:
        """Begin the span of a delivery."""
        producer = _producer(job)
        is_linked = job.replay_of is not None or (isinstance(job, Accepted) and job.not_before is not None)
        earlier = progress.from_bytes(delivery.progress).deliveries
        number = earlier + delivery.crashes + 1
        name, attributes = f"process {delivery.queue}", _of_delivery(job, delivery, number)
        if producer is not None and not is_linked:
            span = self._tracer.start_span(name, under(producer), SpanKind.CONSUMER, attributes)
        else:
            span = self._in_own_trace(name, attributes, delivery, producer)
        state = None if is_linked else job.tracestate
        return DeliverySpans(
            self._tracer, self._names, span, job=job.id, state=state, number=number, calls=delivery.attempts
        )

    def _in_own_trace(
        self, name: str, attributes: dict[str, AttributeValue], delivery: Delivery, producer: SpanContext | None
    ) -> Span:
        """Begin a trace with the first delivery of a job, or go on with it."""
        links = () if producer is None else (Link(producer),)
        trace_id, span_id = (int(digits, 16) for digits in ids_of((delivery.queue, delivery.ref)))
        if delivery.is_first:
            self._ids.use(trace_id, span_id)
            return self._tracer.start_span(name, Context(), SpanKind.CONSUMER, attributes, links)
        # Whether the first delivery was sampled is not stored: for the same trace, the sampler decides the same again.
        decided = self._sampler.should_sample(Context(), trace_id, name, SpanKind.CONSUMER, attributes, links)
        is_sampled = decided.decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
        first = SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
        return self._tracer.start_span(name, under(first), SpanKind.CONSUMER, attributes, links)


def _producer(job: ParsedJob) -> SpanContext | None:
    """Return the context that came with a job; ``tasks.trace.read`` has found it well-formed."""
    if job.traceparent is None:
        return None
    _, trace_id, span_id, flags = job.traceparent.split("-")
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([job.tracestate] if job.tracestate else []),
    )


def _of_delivery(job: ParsedJob, delivery: Delivery, number: int) -> dict[str, AttributeValue]:
    attributes = _messaging("process", "process", delivery.queue, job.id)
    attributes[semconv.MESSAGING_MESSAGE_BODY_SIZE] = delivery.size
    attributes[semconv.DELIVERY] = number
    if job.replay_of is not None:
        attributes[semconv.REPLAY_OF] = job.replay_of
    if isinstance(job, Accepted) and job.job.rule_id is not None:
        attributes[semconv.RULE_ID] = job.job.rule_id
    return attributes


def _messaging(operation: str, kind: str, destination: str, message: str) -> dict[str, AttributeValue]:
    return {
        semconv.MESSAGING_SYSTEM: _SYSTEM,
        semconv.MESSAGING_OPERATION_NAME: operation,
        semconv.MESSAGING_OPERATION_TYPE: kind,
        semconv.MESSAGING_DESTINATION_NAME: destination,
        semconv.MESSAGING_MESSAGE_ID: message,
    }


def _trace(span: Span, state: str | None) -> Trace:
    context = span.get_span_context()
    flags = f"{context.trace_flags & TraceFlags.SAMPLED:02x}"
    return Trace(format_trace_id(context.trace_id), format_span_id(context.span_id), flags, state)


def _fail(span: Span, error: str) -> None:
    span.set_attribute(semconv.ERROR_TYPE, error)
    span.set_status(StatusCode.ERROR)
