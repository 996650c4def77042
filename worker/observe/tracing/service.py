"""Sets OpenTelemetry up for a worker: where spans go, what they tell of the worker, and how that ends."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from worker.observe.tracing import semconv
from worker.observe.tracing.export import (
    BoundedQueue,
    LostSpans,
    Reasons,
    ToldExporter,
    queue_size,
    without_credentials,
)
from worker.observe.tracing.sampling import JobIds, LinkedSampler
from worker.observe.tracing.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.message import ParsedJob
    from worker.broker.records import Delivery
    from worker.observe.tracing.spans import DeliverySpans, SpanNames

logger = logging.getLogger(__name__)

_SERVICE: Final = "lock-worker"
#: What OpenTelemetry calls a service that no variable names.
_UNNAMED: Final = "unknown_service"
#: Seconds that a shutdown waits at most until the last spans are out.
_MAX_FLUSH_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.01


class Tracing:
    """Records the spans of a worker's jobs, from :meth:`start` to :meth:`stop`.

    Args:
        names: what the spans of all jobs have in common.
        endpoint: the receiver, for the log.
        version: the worker's.
        instance: the worker's name.
        seconds_left: returns the seconds that a shutdown may still take.
    """

    def __init__(
        self, names: SpanNames, *, endpoint: str, version: str, instance: str, seconds_left: Callable[[], float]
    ) -> None:
        self._names = names
        self._endpoint = endpoint
        self._version = version
        self._instance = instance
        self._seconds_left = seconds_left
        self._ids = JobIds()
        self._reasons = Reasons()
        self._queue: BoundedQueue | None = None
        self._spans: Spans | None = None

    def begin(self, job: ParsedJob, delivery: Delivery) -> DeliverySpans | None:
        """Begin the span of a delivery; None: nothing is recorded."""
        return None if self._spans is None else self._spans.begin(job, delivery)

    async def start(self) -> None:
        """Begin to record; the worker runs all the same where OpenTelemetry refuses a variable, and logs that."""
        try:
            provider = self._provider()
        except Exception as error:  # noqa: BLE001 - whatever a library makes of its variables, jobs come first
            # Of other errors it is not known what they quote.
            detail = f" ({without_credentials(str(error))})" if isinstance(error, ValueError) else ""
            problem = f"OpenTelemetry does not start: {type(error).__name__}{detail}; check the OTEL_ variables"
            logger.warning("tracing_off", extra={"problem": problem})
            return
        tracer = provider.get_tracer(_SERVICE, self._version)
        self._spans = Spans(tracer, provider.sampler, self._ids, self._names)
        facts = {
            "endpoint": self._endpoint,
            "service": provider.resource.attributes[semconv.SERVICE_NAME],
            "sampler": provider.sampler.get_description(),
        }
        logger.info("tracing_on", extra=facts)

    async def stop(self) -> None:
        """Export what waits, as far as there is time."""
        if self._queue is None:
            return
        thread = threading.Thread(target=self._queue.shutdown, name="traces-shutdown", daemon=True)
        thread.start()
        end_at = time.monotonic() + min(_MAX_FLUSH_SECONDS, self._seconds_left())
        while thread.is_alive() and time.monotonic() < end_at:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_SECONDS)
        self._reasons.leave()
        if self._queue.unsent:
            logger.warning("traces_left_behind", extra={"spans": self._queue.unsent})

    def _provider(self) -> TracerProvider:
        lost = LostSpans()
        exporter = ToldExporter(OTLPSpanExporter(), lost, self._reasons)
        # Without a sampler it makes the one that OTEL_TRACES_SAMPLER names.
        provider = TracerProvider(resource=self._resource(), shutdown_on_exit=False, id_generator=self._ids)
        provider.sampler = LinkedSampler(provider.sampler)
        self._queue = BoundedQueue(exporter, lost, queue_size())
        provider.add_span_processor(self._queue)
        self._reasons.listen()
        return provider

    def _resource(self) -> Resource:
        found = Resource.create({semconv.SERVICE_VERSION: self._version, semconv.SERVICE_INSTANCE_ID: self._instance})
        is_named = not str(found.attributes[semconv.SERVICE_NAME]).startswith(_UNNAMED)
        return found if is_named else found.merge(Resource({semconv.SERVICE_NAME: _SERVICE}))
