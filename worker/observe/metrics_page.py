"""Makes the page of metrics as its client asks for it: in OpenMetrics or the text format of Prometheus, gzip or not.

``prometheus_client`` chooses and writes the formats. Its own server is not used: the health port has one that no client
can use to harm the worker (:mod:`worker.observe.page_server`).
"""

from __future__ import annotations

import gzip
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from worker.observe import fleet_metrics, metrics, process_metrics
from worker.observe.page_request import Page

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from prometheus_client.registry import Collector

_FAST = 1


def _together(*collectors: Collector) -> CollectorRegistry:
    together = CollectorRegistry()
    for collector in collectors:
        together.register(collector)
    return together


#: What a worker shows: of itself, and of its fleet.
OF_A_WORKER = _together(metrics.REGISTRY, process_metrics.REGISTRY, fleet_metrics.FRESH)
#: What the exporter shows.
OF_A_FLEET = _together(process_metrics.REGISTRY, fleet_metrics.FRESH)


def metrics_page(registry: CollectorRegistry, accept: str, accept_encoding: str) -> Page:
    """Return the page.

    Args:
        registry: the metrics.
        accept: the request's ``Accept``; empty: it had none.
        accept_encoding: the request's ``Accept-Encoding``; empty: it had none.
    """
    encode: Callable[[Any], bytes]
    encode, content_type = choose_encoder(accept)
    body = encode(registry)
    if not gzip_accepted(accept_encoding):
        return Page(HTTPStatus.OK, content_type, body)
    return Page(HTTPStatus.OK, content_type, gzip.compress(body, _FAST, mtime=0), encoding="gzip")
