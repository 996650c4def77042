"""The health and metrics server: what an orchestrator and Prometheus ask a worker.

``/livez`` answers as long as the asyncio loop turns, which keeps the leases; a Redis or an API that is away is no
reason to restart a pod. ``/readyz`` tells whether this worker can work, and what holds the whole fleet back.
``/metrics`` is for Prometheus.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from worker.observe.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long a shutdown waits for answers that are under way.
_SHUTDOWN_SECONDS = 1.0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that a port in use stops the start and not the work.

    Raises:
        OSError: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


class HealthServer:
    """Answers on one socket.

    Args:
        listening: the socket.
        reasons: why this worker cannot work now; empty: it can.
        held_back_by: what holds the whole fleet back, which no other pod would mend.
        refresh: brings the gauges up to date.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        reasons: Callable[[], list[str]],
        held_back_by: Callable[[], list[str]],
        refresh: Callable[[], None],
    ) -> None:
        self._socket = listening
        self._reasons = reasons
        self._held_back_by = held_back_by
        self._refresh = refresh
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to answer."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        # aiohttp would wait 10 s for the rest of a request that a client never sends, in a shutdown too.
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, lingering_time=0.0, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def stop(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._reasons()
        if reasons:
            return web.json_response({"status": "not ready", "reasons": reasons}, status=503)
        held_back_by = self._held_back_by()
        return web.json_response({"status": "ready"} | ({"held_back_by": held_back_by} if held_back_by else {}))

    async def _metrics(self, _: web.Request) -> web.Response:
        self._refresh()
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
