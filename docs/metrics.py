"""The page of metrics."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase

from worker.observe import metrics

_HEAD = """\
# Metrics

<!-- Made from worker/observe/metrics.py by `make docs`; do not edit. -->

`GET /metrics` on `HEALTH_PORT`, in the text format of Prometheus. They tell of one process since it started; what the
whole fleet has done stands in Redis, where `lock-worker status` reads it. A histogram's series end in `_bucket`, `_sum`
and `_count`; a `_created` gauge beside a counter or a histogram tells when it began.

| Name | Type | Labels | Meaning |
| --- | --- | --- | --- |
"""


def metrics_page() -> str:
    """The table of all metrics."""
    return _HEAD + "".join(_row(found) for found in vars(metrics).values() if isinstance(found, MetricWrapperBase))


def _row(metric: MetricWrapperBase) -> str:
    (told,) = metric.describe()
    name = f"{told.name}_total" if told.type == "counter" else told.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - told nowhere else before a sample
    return f"| `{name}` | {told.type} | {labels} | {told.documentation} |\n"
