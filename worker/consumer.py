"""Celery's consumer with what a fleet of hundreds needs: no chatter between workers, and a quick way back to Redis."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any, assert_never

from celery.exceptions import CPendingDeprecationWarning, WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker import consumer as stock
from celery.worker.state import maybe_shutdown

from worker.broker.server_check import Risk, ServerIsReadOnly, Unfit, Unknown, look

logger = logging.getLogger(__name__)

# Advice on a setting that this worker has chosen, repeated on every lost connection.
warnings.filterwarnings("ignore", "\\s*In Celery 5.1 we introduced", CPendingDeprecationWarning)

_RECONNECT_SECONDS = 0.25
_RECONNECT_LONGEST_SECONDS = 2.0
_REPLICA_SECONDS = 1.0


class Consumer(stock.Consumer):
    """The consumer.

    Mingle costs a second of start-up, gossip makes every worker listen to every other one; neither serves a job here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "without_mingle": True, "without_gossip": True})
        self._is_server_checked = False
        app: Any = self.app
        app.books.consumer = self

    def connect(self) -> Any:
        """Connect; the first time, also see whether the server is fit for a queue, before anything is taken from it.

        Raises:
            WorkerShutdown: it is not. Nobody mends that without a person, so the worker ends, with a status that tells.
        """
        # Known before the look, so that what fails in it is told and mended as a lost connection.
        self.connection = connection = super().connect()
        if not self._is_server_checked:
            self._check_the_server(connection)
        return connection

    def _check_the_server(self, connection: Any) -> None:
        app: Any = self.app
        with connection.default_channel.conn_or_acquire() as client:
            found = look(client, allow_eviction=app.allow_eviction)
        self._is_server_checked = True
        for finding in found:
            told = {"problem": finding.problem, "advice": finding.advice}
            match finding:
                case Unfit():
                    logger.error("redis_unfit", extra=told)
                case Risk():
                    logger.warning("redis_may_forget", extra=told)
                case Unknown():
                    logger.warning("redis_not_checked", extra=told)
                case _:
                    assert_never(finding)
        if any(isinstance(finding, Unfit) for finding in found):
            raise WorkerShutdown(EX_FAILURE)

    def cancel_active_requests(self) -> None:
        """Cancel what runs, and so also what Celery was not shown yet."""
        app: Any = self.app
        app.books.catch_up()
        super().cancel_active_requests()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say what Redis said: Celery shows only the name of the error.

        A replica accepts every connection at once and is of no use, so it is left alone for a moment.
        """
        logger.error("redis_lost", extra={"error": str(exc)})
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, ServerIsReadOnly):
            time.sleep(_REPLICA_SECONDS)

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
