"""Serves the health and metrics port, for an orchestrator and Prometheus.

``/livez`` answers as long as the asyncio loop, which renews the leases, is running; an outage of Redis or of the API is
no reason to restart a pod. ``/readyz`` says if this worker can work, and what holds the whole fleet back. ``/metrics``
is for Prometheus.

A thread of its own serves the port (:mod:`worker.observe.page_server`). For its answers it asks the asyncio loop, with
one question under way at a time, however many requests wait for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from functools import cache, partial
from http import HTTPStatus
from socket import gaierror
from typing import TYPE_CHECKING, Any

from worker.observe.listening import listen
from worker.observe.metrics_page import OF_A_WORKER, metrics_page
from worker.observe.page_request import Page
from worker.observe.page_server import PageServer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from worker.observe.page_request import Request

logger = logging.getLogger(__name__)

_LIVEZ, _READYZ, _METRICS = "/livez", "/readyz", "/metrics"


def _json(status: HTTPStatus, body: dict[str, Any]) -> Page:
    return Page(status, "application/json; charset=utf-8", json.dumps(body).encode())


_ALIVE = _json(HTTPStatus.OK, {"status": "alive"})
_BROKEN = _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"status": "not ready", "reasons": ["health_error"]})
_STUCK = _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not alive", "reasons": ["loop_stands_still"]})


class PortError(Exception):
    """The health port cannot be used; the text names the setting and says why."""


def open_port(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for HEALTH_HOST and HEALTH_PORT.

    Raises:
        PortError: no address can be used, or the port is in use.
    """
    try:
        return listen(host, port)
    except OSError as error:
        name = "HEALTH_HOST" if isinstance(error, gaierror) else "HEALTH_PORT"
        where = f"{host} port {port}"
        raise PortError(f"{name}: cannot listen on {where} ({error.strerror}); HEALTH_PORT=0 is for none") from error


class HealthServer:
    """Answers on the health port.

    Args:
        listening: the listening sockets.
        reasons: returns why this worker cannot work now; empty: it can.
        held_back_by: returns what holds this worker back and is no fault of its own, such as a pause of the fleet.
        refresh: updates the gauges.
        metrics: what ``/metrics`` shows.

    The loop that starts the server calls the three functions.
    """

    def __init__(
        self,
        listening: list[socket.socket],
        *,
        reasons: Callable[[], list[str]],
        held_back_by: Callable[[], list[str]],
        refresh: Callable[[], None],
        metrics: CollectorRegistry = OF_A_WORKER,
    ) -> None:
        self._metrics = metrics
        self._reasons = reasons
        self._held_back_by = held_back_by
        self._refresh = refresh
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The requests that the question under way is for, and those that came after it.
        self._asked: list[Request] = []
        self._next: list[Request] = []
        self._server = PageServer(
            listening, paths=frozenset({_LIVEZ, _READYZ, _METRICS}), ask=self._ask, late=_STUCK, name="health"
        )

    async def start(self) -> None:
        """Start the server's thread; to be called on the asyncio loop."""
        self._loop = asyncio.get_running_loop()
        self._server.start()

    async def stop(self) -> None:
        """Stop the server's thread and close its connections."""
        self._server.stop()

    # -- in the server's thread

    def _ask(self, request: Request) -> None:
        # While the loop is stuck, requests whose clients gave up must not pile up.
        self._next = [*filter(_is_waiting, self._next), request]
        if not self._asked:
            self._ask_the_loop()

    def _ask_the_loop(self) -> None:
        self._asked, self._next = self._next, []
        if self._asked and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, as the worker ends
                self._loop.call_soon_threadsafe(self._look)

    def _answer(self, readiness: Page) -> None:
        asked = [*filter(_is_waiting, self._asked)]
        pages = {_LIVEZ: _ALIVE, _READYZ: readiness}
        # Scrapers that ask at once for the same form share one page.
        metrics = cache(partial(metrics_page, self._metrics))
        for request in asked:
            if request.path == _METRICS:
                request.answer(metrics(request.accept, request.accept_encoding))
            else:
                request.answer(pages[request.path])
        self._asked = []
        self._ask_the_loop()

    # -- on the loop

    def _look(self) -> None:
        readiness = _BROKEN
        try:
            self._refresh()
            readiness = self._readiness()
        except Exception:  # an error here must not leave the question open, or no other would be asked
            logger.exception("health_error")
        self._server.call_soon(partial(self._answer, readiness))

    def _readiness(self) -> Page:
        reasons = self._reasons()
        if reasons:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not ready", "reasons": reasons})
        held_back_by = self._held_back_by()
        return _json(HTTPStatus.OK, {"status": "ready"} | ({"held_back_by": held_back_by} if held_back_by else {}))


def _is_waiting(request: Request) -> bool:
    return request.is_waiting
