"""kombu's Redis transport, which leaves the job queues alone: their jobs are taken where they are run.

Celery consumes from a job queue as from any other, and its remote control may add one and cancel one; here that tells
the desk to take from it. Remote control itself, Celery's events and everything that publishes go through kombu's code.

What a lost connection means here: nothing. Jobs in flight belong to their leases, not to a connection, so every way
of kombu's to push them back is switched off.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

import kombu
from click import ClickException
from kombu.transport import redis as stock
from kombu.transport import virtual
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from worker.broker.connection import KEEPALIVE_OPTIONS, TIMEOUT_SECONDS, PrimaryConnection, PrimarySSLConnection
from worker.broker.keys import is_celerys_own

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.connection import Credentials

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobConsumer:
    """What takes the jobs in kombu's place.

    Attributes:
        is_job_queue: returns whether a queue holds jobs (and not Celery's own remote control).
        consume: takes jobs from a queue from now on.
        cancel: takes no more jobs from a queue; returns when that is so.
    """

    is_job_queue: Callable[[str], bool]
    consume: Callable[[str], None]
    cancel: Callable[[str], None]

    def __json__(self) -> str:
        """What ``inspect stats`` shows of it: kombu cannot answer with what it cannot turn into JSON."""
        return type(self).__name__


class JobsAreKeptError(ClickException):
    """Something would take jobs off a queue without an event for each. Celery's commands end with this one sentence."""

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"lock-worker refuses to empty the queue {queue!r}: every job ends in one result event, so none is thrown "
            "away. Stop whoever sends the jobs, and let the workers finish them; a revoke ends a job without a call."
        )


class Connection(kombu.Connection):  # type: ignore[misc]
    """A connection on which nothing is tried again without end.

    Celery answers commands of the remote control and sends heartbeats on the thread of its loop. kombu would connect
    anew there for as long as Redis is away, and nobody would hear of SIGTERM. The loop itself connects anew, with waits
    of its own.
    """

    def ensure(
        self, obj: Any, fun: Callable[..., Any], errback: Any = None, max_retries: int | None = None, **policy: Any
    ) -> Callable[..., Any]:
        """What tries ``fun`` so often; once where nobody says how often, and then it raises what ``fun`` raises."""
        if max_retries is None:
            return fun
        retried: Callable[..., Any] = super().ensure(obj, fun, errback, max_retries, **policy)
        return retried


class QoS(virtual.QoS):  # type: ignore[misc]
    """Restores nothing: jobs in flight belong to their leases."""

    restore_at_shutdown = False

    def restore_unacked(self) -> list[Any]:
        """Leases outlive a connection."""
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Leases outlive a connection."""

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Lost jobs are found by maintenance."""


class Channel(stock.Channel):  # type: ignore[misc]
    """A channel that takes no jobs."""

    QoS = QoS
    from_transport_options: ClassVar[tuple[str, ...]] = (
        *stock.Channel.from_transport_options,
        "job_consumer",
        "credentials",
    )

    job_consumer: JobConsumer
    credentials: Credentials
    socket_timeout = TIMEOUT_SECONDS
    socket_connect_timeout = TIMEOUT_SECONDS
    socket_keepalive = True
    socket_keepalive_options = KEEPALIVE_OPTIONS
    connection_class = PrimaryConnection
    connection_class_ssl = PrimarySSLConnection

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        """Kombu's arguments, with the user and password that are kept out of its URL, and without repeated commands."""
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        params.update(
            username=self.credentials.username,
            password=self.credentials.password,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        return params

    @property
    def active_queues(self) -> list[str]:
        """The queues that kombu is to read from."""
        return [queue for queue in super().active_queues if not self.job_consumer.is_job_queue(queue)]

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue."""
        consumer = super().basic_consume(queue, *args, **kwargs)
        if self.job_consumer.is_job_queue(queue):
            self.job_consumer.consume(queue)
        return consumer

    def _basic_cancel(self, consumer_tag: str) -> None:
        queue = self._tag_to_queue.get(consumer_tag)
        super()._basic_cancel(consumer_tag)
        # A channel that is closed cancels its consumers too: jobs are taken on while Celery connects anew.
        if queue is not None and not self._closing:
            self.job_consumer.cancel(queue)

    def queue_purge(self, queue: str, **_: Any) -> Any:
        """Refuse to throw messages away.

        Raises:
            JobsAreKeptError: always.
        """
        raise JobsAreKeptError(queue)

    def queue_delete(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Delete a queue of Celery's own.

        Raises:
            JobsAreKeptError: it is another one.
        """
        if not is_celerys_own(queue):
            raise JobsAreKeptError(queue)
        return super().queue_delete(queue, *args, **kwargs)

    def basic_get(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Take a message off a queue of Celery's own; a job would get lost by that.

        Raises:
            JobsAreKeptError: it is another one.
        """
        if not is_celerys_own(queue):
            raise JobsAreKeptError(queue)
        return super().basic_get(queue, *args, **kwargs)

    def _queue_bind(self, *binding: Any) -> None:
        """Bind a queue; where the server will not note it, go on: nothing here needs the note."""
        try:
            super()._queue_bind(*binding)
        except ResponseError as error:
            logger.warning("binding_not_noted", extra={"error": str(error)})

    def maybe_refresh_binding_expiry(self) -> None:
        """Note bindings again; where the server will not, wait for the next turn: kombu would ask each second."""
        try:
            super().maybe_refresh_binding_expiry()
        except ResponseError as error:
            self._binding_expiry_refreshed_at = self._bindings_swept_at = monotonic()
            logger.warning("binding_not_noted", extra={"error": str(error)})


class Transport(stock.Transport):  # type: ignore[misc]
    """The worker's transport; it needs the options ``desk`` and ``credentials``."""

    Channel = Channel
