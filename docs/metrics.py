"""The page of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics import MetricWrapperBase

from worker.observe import fleet_metrics, metrics, process_metrics

if TYPE_CHECKING:
    from types import ModuleType

_HEAD = """\
# Metrics

<!-- Made from worker/observe/*metrics.py by `make docs`; do not edit. -->

`GET /metrics` on `HEALTH_PORT`, in OpenMetrics or the text format of Prometheus, with gzip if the client accepts it.
Every series stands at 0 from the start. No label holds a conversation or a job id. A histogram's series end in
`_bucket`, `_sum` and `_count`. The standard `process_*` metrics are there too.
"""
_OF_A_WORKER = """
## Of one worker, since it started

Add these up over the workers.

"""
_OF_A_PROCESS = """
## Of one process

A worker and `lock-worker exporter` have them.

"""
_OF_THE_FLEET = """
## Of the whole fleet

Every worker reads them from Redis every three seconds, and so does `lock-worker exporter`, which needs no worker.
They are the same from each: take the maximum, not the sum. They stand at 0 before the first read. A process that has
read them and then could not for 15 s leaves them out until it can, so that the maximum never shows the old values of
a process that is cut off from Redis. `lock_worker_redis_up` is 0 then. An autoscaler that finds no value should keep
the number of workers.

**Scale on `lock_worker_queue_workable`**: the jobs that more workers could do now. Do not scale on the lengths of
lists: a job with an `eta` looks ready until its first take, delayed jobs are on no list, and while the API is down,
asks for a pause or is called at its rate limit, more workers only wait.

"""
_TABLE = "| Name | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n"


def metrics_page() -> str:
    """The tables of all metrics."""
    parts = ((_OF_A_WORKER, metrics), (_OF_A_PROCESS, process_metrics), (_OF_THE_FLEET, fleet_metrics))
    return _HEAD + "".join(head + _TABLE + _rows(module) for head, module in parts)


def _rows(module: ModuleType) -> str:
    return "".join(_row(found) for found in vars(module).values() if isinstance(found, MetricWrapperBase))


def _row(metric: MetricWrapperBase) -> str:
    (told,) = metric.describe()
    name = f"{told.name}_total" if told.type == "counter" else told.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - told nowhere else before a sample
    return f"| `{name}` | {told.type} | {labels} | {told.documentation} |\n"
