"""A plugin for a worker process (``--include``): OpenTelemetry's Celery integration, with its spans in a list in Redis.

``PYTHONPATH`` must have the packages of ``tests/system/outside/opentelemetry.lock``.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import redis
from celery import signals

#: A list of the names of the spans that ended.
SPANS = os.environ["SPANS_KEY"]
READY = "the worker is ready"

trace = import_module("opentelemetry.trace")
sdk = import_module("opentelemetry.sdk.trace")
client: Any = redis.Redis.from_url(os.environ["REDIS_URL"])


class Exporter:
    def export(self, spans: Any) -> Any:
        for span in spans:
            client.rpush(SPANS, span.name)

    def shutdown(self) -> None:
        pass


def ready(**_: Any) -> None:
    # Without receivers nothing could come of the jobs, and the test would be about nothing.
    assert signals.task_prerun.receivers
    assert signals.task_postrun.receivers
    trace.get_tracer("test").start_span(READY).end()


provider = sdk.TracerProvider()
provider.add_span_processor(import_module("opentelemetry.sdk.trace.export").SimpleSpanProcessor(Exporter()))
trace.set_tracer_provider(provider)
import_module("opentelemetry.instrumentation.celery").CeleryInstrumentor().instrument()
signals.worker_ready.connect(ready, weak=False)
