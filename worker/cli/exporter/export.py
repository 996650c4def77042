"""Reads the fleet's state every few seconds, and serves it as metrics until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from worker.broker import connection
from worker.broker.backoff import ConnectBackoff
from worker.broker.refusals import ServerIsUnfitError
from worker.broker.stream_bounds import StreamBounds
from worker.cli.exit import redis_address
from worker.observe import process_metrics
from worker.observe.health import HealthServer, open_port
from worker.observe.metrics_page import OF_A_FLEET
from worker.runtime.fleet_watch import LOOK_SECONDS, fleet_watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from settings import Settings
    from worker.broker.address_resolver import AddressResolver
    from worker.broker.redis_problems import Unfit

logger = logging.getLogger(__name__)

#: Seconds without an answer of Redis after which the exporter is not ready.
_SILENT_SECONDS = 10.0


async def export(settings: Settings) -> None:
    """Serve the metrics until SIGTERM or SIGINT.

    Raises:
        PortError: the port cannot be used.
        ServerIsUnfitError: REDIS_URL leads to no usable server, which is found out and logged at the start.
    """
    read_at = float("-inf")

    def note_read() -> None:
        nonlocal read_at
        read_at = time.monotonic()

    def is_up() -> bool:
        return time.monotonic() - read_at < _SILENT_SECONDS

    health = _health(settings, is_up)
    resolver = connection.address_resolver(settings)
    client = connection.async_client(settings, ConnectBackoff(), resolver, on_useless=lambda _: None)
    bounds = StreamBounds(settings.RESULTS_MAX_BYTES, settings.DEAD_MAX_BYTES)
    watch = fleet_watch(settings, client, bounds, on_read=note_read)
    stopped = _stopped_by_signal()
    await health.start()
    await watch.start()
    _log_start(settings)
    try:
        await _wait_for_address(resolver, stopped)
        await stopped.wait()
    finally:
        await watch.stop()
        await health.stop()
        await client.disconnect()
        logger.info("exporter_stopped")


async def _wait_for_address(resolver: AddressResolver | None, stopped: asyncio.Event) -> None:
    """Return once sentinels or nodes of a cluster, where they have to be asked, tell the server's address.

    Raises:
        ServerIsUnfitError: they answer, and waiting does not help, such as where no sentinel knows the primary's name.
    """
    while resolver is not None and not stopped.is_set():
        try:
            await resolver.resolve_async()
        except ServerIsUnfitError as error:
            _log_unfit(error.unfit)
            raise
        except RedisError:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), LOOK_SECONDS)
        else:
            return


def _log_start(settings: Settings) -> None:
    fields = {
        "queue": settings.LOCK_QUEUE,
        "redis": redis_address(settings),
        "host": settings.HEALTH_HOST,
        "port": settings.HEALTH_PORT,
    }
    logger.info("exporter_started", extra=fields)


def _log_unfit(unfit: Unfit) -> None:
    logger.error("redis_unfit", extra={"problem": unfit.problem, "advice": unfit.advice})


def _health(settings: Settings, is_up: Callable[[], bool]) -> HealthServer:
    return HealthServer(
        open_port(settings.HEALTH_HOST, settings.HEALTH_PORT),
        reasons=lambda: [] if is_up() else ["redis_unreachable"],
        held_back_by=list,
        refresh=lambda: process_metrics.REDIS_UP.set(is_up()),
        metrics=OF_A_FLEET,
    )


def _stopped_by_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped
