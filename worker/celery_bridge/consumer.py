"""Celery's consumer with what a fleet of hundreds needs: no chatter between workers, and a quick way back to Redis."""

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

from worker.broker.refusals import ServerIsUnfitError, Unfit, meaning
from worker.broker.server_check import Finding, Risk, look
from worker.observe.outages import outages

logger = logging.getLogger(__name__)

# Advice on a setting that this worker has chosen, repeated on every lost connection.
warnings.filterwarnings("ignore", "\\s*In Celery 5.1 we introduced", CPendingDeprecationWarning)

_PUBSUB_IS_SHARED = {
    "problem": "Jobs and streams are those of this database, but pub/sub knows no databases: whoever listens on "
    "RESULTS_CHANNEL hears the events of all databases of this server.",
    "advice": "Give each environment that shares the server a RESULTS_CHANNEL and an EVENT_SOURCE of its own.",
}
#: How long a sleep before the next attempt to connect lasts at most: between two of them it is seen that a worker is
#: to stop.
_SLEEP_SECONDS = 0.1
#: What the log calls Celery's side, its remote control and its events.
_PART = "celery"


def _is_not_said_here(record: logging.LogRecord) -> bool:
    """Celery's own line for each lost connection: ``worker.observe.outages`` tells of all of them together."""
    return not (record.args and CONNECTION_RETRY in record.args)


logging.getLogger("celery.worker.consumer.consumer").addFilter(_is_not_said_here)


class Consumer(stock.Consumer):
    """The consumer.

    Mingle costs a second of start-up, gossip makes every worker listen to every other one; neither serves a job here.

    ``connected_at`` is the monotonic time when the connection that it has began to be made; infinite while it has none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "without_mingle": True, "without_gossip": True})
        self._is_server_checked = False
        self._findings: list[Finding] = []
        self._began_at = 0.0
        self.connected_at = math.inf
        # The waits between attempts are the backoff's, which all connections of the process share.
        self._restart_state.maxR = None  # type: ignore[attr-defined]  # as above
        app: Any = self.app
        self._backoff = app.backoff
        app.monitoring.consumer = self

    def connect(self) -> Any:
        """Connect, and see whether the server is fit for a queue; the first time, before anything is taken from it.

        Raises:
            WorkerShutdown: it was not, the first time. Nobody mends that without a person, so the worker ends, with a
                status that tells.
        """
        self.connected_at = math.inf
        self._wait_for_turn()
        try:
            # Known before the look, so that what fails in it is told and mended as a lost connection.
            self.connection = connection = super().connect()
            self._look_at_the_server(connection)
        except (RedisError, OSError) as error:
            self._end_if_it_never_works(error)
            raise
        self._backoff.worked()
        outages.worked(_PART)
        self.connected_at = self._began_at
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes: no job in flight depends on this connection, and nobody else restarts it."""

        def on_error(error: Exception, _interval: float) -> None:
            self._end_if_it_never_works(error)
            self._failed(error)
            self._wait_for_turn()

        conn = conn.ensure_connection(
            on_error,
            None,
            interval_start=0,
            interval_step=0,
            callback=maybe_shutdown,
            reraise_as_library_errors=False,  # kombu's own say less
        )
        self.first_connection_attempt = False
        return conn

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Say what Redis said, as for any other trouble with it."""
        self._failed(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say what Redis said, and close the connection."""
        self._failed(exc)
        super().on_connection_error_after_connected(exc)

    def cancel_active_requests(self) -> None:
        """Cancel what runs, and so also what Celery was not shown yet."""
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

    def _look_at_the_server(self, connection: Any) -> None:
        app: Any = self.app
        # Later it is not stopped for a policy: jobs that are there would not be safer for it.
        allow_eviction = app.allow_eviction or self._is_server_checked
        with connection.default_channel.conn_or_acquire() as client:
            found = look(client, app.keys_together, allow_eviction=allow_eviction)
            database = client.connection_pool.connection_kwargs.get("db") or 0
        unfit = [finding for finding in found if isinstance(finding, Unfit)]
        if unfit and not self._is_server_checked:
            self._end(found)
        if unfit:
            raise ServerIsUnfitError(unfit[0])
        self._tell(found)
        if self._is_server_checked:
            return
        self._is_server_checked = True
        app.look_for_leftovers()
        if database:
            logger.warning("pubsub_knows_no_databases", extra={"database": database, **_PUBSUB_IS_SHARED})

    def _tell(self, found: list[Finding]) -> None:
        """Tell what is new since the last look: another server may answer at the same address by now."""
        for finding in found:
            if finding not in self._findings:
                told = {"problem": finding.problem, "advice": finding.advice}
                if isinstance(finding, Unfit):
                    logger.error("redis_unfit", extra=told)
                elif isinstance(finding, Risk):
                    logger.warning("redis_may_forget", extra=told)
                else:
                    logger.warning("redis_not_checked", extra=told)
        self._findings = found

    def _end_if_it_never_works(self, error: Exception) -> None:
        """At the start, and not later: a worker that has begun waits until what was broken meanwhile is mended."""
        unfit = meaning(error)
        if isinstance(unfit, Unfit) and not self._is_server_checked:
            self._end([unfit])

    def _end(self, found: list[Finding]) -> NoReturn:
        self._tell(found)
        raise WorkerShutdown(EX_FAILURE)
