"""kombu's Redis transport, changed to take no jobs: the asyncio runtime takes them itself.

Celery consumes from a job queue as from any other, and its remote control may add and cancel queues. Here that only
tells the job consumer to take from the queue or to stop. Remote control itself, Celery's events and everything that
publishes go through kombu's code.

A lost connection affects no job: jobs in flight belong to their leases, not to a connection. So every way in which
kombu pushes jobs back is switched off.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

import kombu
import redis
from click import ClickException
from kombu.transport import redis as stock
from kombu.transport import virtual
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from worker.broker.connection import KEEPALIVE_OPTIONS, TIMEOUT_SECONDS, ResolvedConnection, ResolvedSSLConnection
from worker.broker.keys import is_celerys_own, is_in_slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.address_resolver import AddressResolver
    from worker.broker.credentials import Credentials

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
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

    def __repr__(self) -> str:
        """What ``celery report`` and ``inspect conf`` show of it."""
        return type(self).__name__

    def __json__(self) -> str:
        """What ``inspect stats`` shows of it: kombu cannot answer with what it cannot turn into JSON."""
        return type(self).__name__


class JobsAreKeptError(ClickException):
    """An operation would remove jobs from a queue without an event for each. Celery's commands show this sentence."""

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"lock-worker refuses to empty the queue {queue!r}: every job ends in one result event, so none is thrown "
            "away. lock-worker cancel --all ends the jobs that wait without a call, each with its event."
        )


class Connection(kombu.Connection):  # type: ignore[misc]
    """A connection without endless retries.

    Celery answers remote-control commands and sends heartbeats on the thread of its own loop. kombu would reconnect
    there for as long as Redis is away, and Celery would not react to SIGTERM. Celery's consumer reconnects instead.
    """

    def ensure(
        self, obj: Any, fun: Callable[..., Any], errback: Any = None, max_retries: int | None = None, **policy: Any
    ) -> Callable[..., Any]:
        """Return ``fun`` with retries if ``max_retries`` says how many; else ``fun`` itself, which runs once."""
        if max_retries is None:
            return fun
        retried: Callable[..., Any] = super().ensure(obj, fun, errback, max_retries, **policy)
        return retried


class QoS(virtual.QoS):  # type: ignore[misc]
    """Restores nothing, because jobs in flight belong to their leases."""

    restore_at_shutdown = False

    def restore_unacked(self) -> list[Any]:
        """Do nothing, because leases outlive a connection."""
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Do nothing, because leases outlive a connection."""

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, because maintenance recovers lost jobs."""


class _TaggedClient(stock.PrefixedStrictRedis):  # type: ignore[misc]
    """A client that puts a cluster's hash tag before keys, but not before a queue of jobs that a message is pushed to.

    The name of such a queue has the tag, and workers look for the jobs under this name.
    """

    def _prefix_args(self, args: Any) -> list[Any]:
        is_job = args[0] == "LPUSH" and is_in_slot(args[1], self.global_keyprefix)
        return list(args) if is_job else super()._prefix_args(args)


class Channel(stock.Channel):  # type: ignore[misc]
    """A channel that takes no jobs."""

    QoS = QoS
    from_transport_options: ClassVar[tuple[str, ...]] = (
        *stock.Channel.from_transport_options,
        "job_consumer",
        "credentials",
        "resolver",
    )

    job_consumer: JobConsumer
    credentials: Credentials | None
    resolver: AddressResolver | None = None
    socket_timeout = TIMEOUT_SECONDS
    socket_connect_timeout = TIMEOUT_SECONDS
    socket_keepalive = True
    socket_keepalive_options = KEEPALIVE_OPTIONS
    connection_class = ResolvedConnection
    connection_class_ssl = ResolvedSSLConnection

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        """Return kombu's arguments, with what its URL lacks, and without retries."""
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        params.update(
            credential_provider=self.credentials,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            resolver=self.resolver,
        )
        return params

    def _get_client(self) -> Any:
        """Return what makes kombu's clients."""
        return partial(_TaggedClient, global_keyprefix=self.global_keyprefix) if self.global_keyprefix else redis.Redis

    @property
    def active_queues(self) -> list[str]:
        """The queues that kombu reads from."""
        return [queue for queue in super().active_queues if not self.job_consumer.is_job_queue(queue)]

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue; from a job queue by the job consumer."""
        consumer = super().basic_consume(queue, *args, **kwargs)
        if self.job_consumer.is_job_queue(queue):
            self.job_consumer.consume(queue)
        return consumer

    def _basic_cancel(self, consumer_tag: str) -> None:
        queue = self._tag_to_queue.get(consumer_tag)
        super()._basic_cancel(consumer_tag)
        # Closing a channel cancels its consumers too, but jobs must be taken on while Celery reconnects.
        if queue is not None and not self._closing:
            self.job_consumer.cancel(queue)

    def queue_purge(self, queue: str, **_: Any) -> Any:
        """Refuse to empty a queue.

        Raises:
            JobsAreKeptError: always.
        """
        raise JobsAreKeptError(queue)

    def queue_delete(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Delete a queue of Celery's own.

        Raises:
            JobsAreKeptError: it is another queue.
        """
        if not is_celerys_own(queue):
            raise JobsAreKeptError(queue)
        return super().queue_delete(queue, *args, **kwargs)

    def basic_get(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Take a message off a queue of Celery's own; a job would be lost that way.

        Raises:
            JobsAreKeptError: it is another queue.
        """
        if not is_celerys_own(queue):
            raise JobsAreKeptError(queue)
        return super().basic_get(queue, *args, **kwargs)

    def _queue_bind(self, *binding: Any) -> None:
        """Bind a queue. If the server refuses to store the binding, go on, as nothing here needs it."""
        try:
            super()._queue_bind(*binding)
        except ResponseError as error:
            logger.warning("binding_not_noted", extra={"error": str(error)})

    def maybe_refresh_binding_expiry(self) -> None:
        """Store the bindings again. If the server refuses, wait for the next turn; kombu would retry each second."""
        try:
            super().maybe_refresh_binding_expiry()
        except ResponseError as error:
            self._binding_expiry_refreshed_at = self._bindings_swept_at = monotonic()
            logger.warning("binding_not_noted", extra={"error": str(error)})


class Transport(stock.Transport):  # type: ignore[misc]
    """The worker's transport; it needs the options ``job_consumer`` and ``credentials``."""

    Channel = Channel
