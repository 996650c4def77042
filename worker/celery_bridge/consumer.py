"""Celery's consumer for a large fleet: no messages between workers, a fast reconnect, and a check of the server."""

from __future__ import annotations

import logging
import math
import time
import warnings
from typing import Any, NoReturn

from celery.exceptions import CPendingDeprecationWarning, WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker import consumer as stock
from celery.worker.consumer.consumer import CONNECTION_RETRY  # type: ignore[attr-defined]  # the stubs lack it
from celery.worker.state import maybe_shutdown
from redis.exceptions import RedisError

from worker.broker.redis_problems import Unfit
from worker.broker.refusals import ServerIsUnfitError, meaning
from worker.broker.server_check import Finding, Risk, look
from worker.observe.outages import outages

logger = logging.getLogger(__name__)

# A warning about a setting that this worker chose on purpose, repeated on every lost connection.
warnings.filterwarnings("ignore", "\\s*In Celery 5.1 we introduced", CPendingDeprecationWarning)

_PUBSUB_IS_SHARED = {
    "problem": "Jobs and streams are those of this database, but pub/sub knows no databases: a subscriber of "
    "RESULTS_CHANNEL gets the events of all databases of this server.",
    "advice": "Give each environment that shares the server a RESULTS_CHANNEL and an EVENT_SOURCE of its own.",
}
#: The longest sleep between two attempts to connect, in seconds. Between two sleeps the worker can stop.
_SLEEP_SECONDS = 0.1
#: The label of Celery's thread, its remote control and its events in the log.
_PART = "celery"


def _is_not_logged_here(record: logging.LogRecord) -> bool:
    """Filter out Celery's line for each lost connection; ``worker.observe.outages`` logs all of them together."""
    return not (record.args and CONNECTION_RETRY in record.args)


logging.getLogger("celery.worker.consumer.consumer").addFilter(_is_not_logged_here)


class Consumer(stock.Consumer):
    """The consumer. It checks the server when it connects.

    Mingle would cost a second of start-up, and gossip would make every worker listen to every other one. No job needs
    either.

    ``connected_at`` is the monotonic time at which the present connection was begun; infinite without a connection.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "without_mingle": True, "without_gossip": True})
        self._is_server_checked = False
        self._findings: list[Finding] = []
        self._began_at = 0.0
        self.connected_at = math.inf
        # The backoff, which all connections of the process share, decides on the waits between attempts.
        self._restart_state.maxR = None  # type: ignore[attr-defined]  # as above
        app: Any = self.app
        self._backoff = app.backoff
        app.monitoring.consumer = self

    def connect(self) -> Any:
        """Connect and check the server, the first time before any job is taken.

        Raises:
            WorkerShutdown: the server was unfit the first time. Only an operator can fix that, so the worker exits with
                a failure status.
        """
        self.connected_at = math.inf
        self._wait_for_turn()
        try:
            # Set before the check, so that an error in it is handled as a lost connection.
            self.connection = connection = super().connect()
            self._check_server(connection)
        except (RedisError, OSError) as error:
            self._end_if_hopeless(error)
            raise
        self._backoff.worked(self._began_at)
        outages.worked(_PART)
        self.connected_at = self._began_at
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes: no job in flight depends on this connection."""

        def on_error(error: Exception, _interval: float) -> None:
            self._end_if_hopeless(error)
            self._failed(error)
            self._wait_for_turn()

        conn = conn.ensure_connection(
            on_error,
            None,
            interval_start=0,
            interval_step=0,
            callback=maybe_shutdown,
            reraise_as_library_errors=False,  # kombu's errors say less
        )
        self.first_connection_attempt = False
        return conn

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Report the error to the outages log."""
        self._failed(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Report the error to the outages log, and close the connection."""
        self._failed(exc)
        super().on_connection_error_after_connected(exc)

    def cancel_active_requests(self) -> None:
        """Cancel all running jobs, including those that Celery does not know of yet."""
        app: Any = self.app
        app.monitoring.sync()
        super().cancel_active_requests()

    def _failed(self, error: Exception) -> None:
        self.connected_at = math.inf
        self._backoff.failed(self._began_at)
        outages.failed(_PART, error)

    def _wait_for_turn(self) -> None:
        while (seconds := self._backoff.seconds_to_wait()) > 0:
            maybe_shutdown()
            time.sleep(min(seconds, _SLEEP_SECONDS))
        self._began_at = time.monotonic()

    def _check_server(self, connection: Any) -> None:
        app: Any = self.app
        # After the first check a policy does not stop the worker: that would not make the jobs in Redis safer.
        allow_eviction = app.allow_eviction or self._is_server_checked
        with connection.default_channel.conn_or_acquire() as client:
            findings = look(client, app.keys_together, allow_eviction=allow_eviction, is_cluster=bool(app.cluster_tag))
            if not self._is_server_checked and not any(isinstance(finding, Unfit) for finding in findings):
                findings += app.check_layout()
            database = client.connection_pool.connection_kwargs.get("db") or 0
        unfit = [finding for finding in findings if isinstance(finding, Unfit)]
        if unfit and not self._is_server_checked:
            self._end(findings)
        if unfit:
            raise ServerIsUnfitError(unfit[0])
        self._log(findings)
        if self._is_server_checked:
            return
        self._is_server_checked = True
        app.look_for_leftovers()
        if database:
            logger.warning("pubsub_knows_no_databases", extra={"database": database, **_PUBSUB_IS_SHARED})

    def _log(self, findings: list[Finding]) -> None:
        """Log findings that are new since the last check; another server may have the same address by now."""
        for finding in findings:
            if finding not in self._findings:
                fields = {"problem": finding.problem, "advice": finding.advice}
                if isinstance(finding, Unfit):
                    logger.error("redis_unfit", extra=fields)
                elif isinstance(finding, Risk):
                    logger.warning("redis_may_lose_data", extra=fields)
                else:
                    logger.warning("redis_not_checked", extra=fields)
        self._findings = findings

    def _end_if_hopeless(self, error: Exception) -> None:
        """End a worker that is just starting. A worker that has run before waits until the problem is fixed."""
        unfit = meaning(error)
        if isinstance(unfit, Unfit) and not self._is_server_checked:
            self._end([unfit])

    def _end(self, findings: list[Finding]) -> NoReturn:
        self._log(findings)
        app: Any = self.app
        app.lifetime.asked_to_stop("redis_unfit")
        raise WorkerShutdown(EX_FAILURE)
