"""Celery's consumer with what a fleet of hundreds needs: no chatter between workers, and a quick way back to Redis."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker import consumer as stock
from celery.worker.state import maybe_shutdown

logger = logging.getLogger(__name__)

# Advice on a setting that this worker has chosen, repeated on every lost connection.
warnings.filterwarnings("ignore", "\\s*In Celery 5.1 we introduced", CPendingDeprecationWarning)

_RECONNECT_SECONDS = 0.25
_RECONNECT_LONGEST_SECONDS = 2.0


class Consumer(stock.Consumer):
    """The consumer.

    Mingle costs a second of start-up, gossip makes every worker listen to every other one; neither serves a job here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "without_mingle": True, "without_gossip": True})

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say what Redis said: Celery shows only the name of the error."""
        logger.error("redis_lost", extra={"error": str(exc)})
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes: no job in flight depends on this connection, and nobody else restarts it."""

        def on_error(error: Exception, interval: float) -> None:
            logger.error("redis_unreachable", extra={"error": str(error), "wait_seconds": interval})

        conn = conn.ensure_connection(
            on_error,
            None,
            interval_start=_RECONNECT_SECONDS,
            interval_step=_RECONNECT_SECONDS,
            interval_max=_RECONNECT_LONGEST_SECONDS,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn
