"""Ids and sampling for jobs: a trace that begins with a job has the same ids, and one decision, wherever it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span, set_span_in_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes


class JobIds(RandomIdGenerator):
    """Draws ids, unless those of the next span are given.

    A span is started without an ``await`` between :meth:`use` and its start, and in one thread, so it gets the ids.
    """

    def __init__(self) -> None:
        self._trace_id: int | None = None
        self._span_id: int | None = None

    def use(self, trace_id: int, span_id: int) -> None:
        """Give the ids of the next span, which begins a trace."""
        self._trace_id, self._span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        """Return the id of a trace."""
        given, self._trace_id = self._trace_id, None
        return super().generate_trace_id() if given is None else given

    def generate_span_id(self) -> int:
        """Return the id of a span."""
        given, self._span_id = self._span_id, None
        return super().generate_span_id() if given is None else given

    def is_trace_id_random(self) -> bool:
        """No: that of a trace which begins with a job is made from the job's name."""
        return False


class LinkedSampler(Sampler):
    """Asks another sampler; for a span that begins a trace and is linked to a producer's, as if it continued that one.

    So the producer's decision counts for a job with an ``eta``, too. Its tracestate belongs to its own trace.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(  # noqa: PLR0917 - OpenTelemetry's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on a span."""
        if not links or get_current_span(parent_context).get_span_context().is_valid:
            return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        linked = under(links[0].context)
        result = self._sampler.should_sample(linked, trace_id, name, kind, attributes, links, trace_state)
        return SamplingResult(result.decision, result.attributes)

    def get_description(self) -> str:
        """Return the other sampler's name."""
        return self._sampler.get_description()


def under(parent: SpanContext) -> Context:
    """Return the context in which a span has this parent."""
    return set_span_in_context(NonRecordingSpan(parent), Context())
