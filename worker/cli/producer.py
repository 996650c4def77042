"""Sends jobs as any stock Celery producer does, and knows of each whether it is in Redis.

``send_task`` of a plain ``celery.Celery`` makes the messages, over a transport that only takes them down, so that what
works here works for every service that sends jobs. They are sent by a connection of our own, because kombu's does not
say which commands of a batch Redis refused.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from celery import Celery, uuid
from kombu import Connection
from kombu.transport import virtual
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from tasks.task_name import TASK_NAME
from worker.broker import connection
from worker.broker.keys import Keys
from worker.broker.refusals import was_refused
from worker.cli.refusals import described

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from settings import Settings

#: Jobs in one round trip.
BATCH_JOBS = 1000


@dataclass(frozen=True, slots=True)
class OutgoingJob:
    """A job to be sent.

    Attributes:
        fields: what is asked for.
        options: Celery's message options: ``task_id``, ``eta``, ``expires``, ``priority``.
        task: the task's name.
    """

    fields: dict[str, Any]
    options: Mapping[str, Any]
    task: str = TASK_NAME


class Arrival(Enum):
    """Whether a job is in Redis."""

    YES = "arrived"
    NO = "did not arrive"
    UNKNOWN = "may have arrived"


class SendError(Exception):
    """Not all jobs of a batch arrived; the message says why.

    Attributes:
        ids: the ids of the jobs that did.
        arrivals: of each job of the batch, in its order; empty: there was no batch yet.
    """

    def __init__(self, error: RedisError, ids: Sequence[str] = (), arrivals: Sequence[Arrival] = ()) -> None:
        super().__init__(described(error))
        self.ids = ids
        self.arrivals = arrivals


class _Channel(virtual.Channel):  # type: ignore[misc]  # kombu has no types
    """Takes down what would be sent: each message with its priority, as kombu's Redis transport writes it."""

    do_restore = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.written: list[tuple[int, bytes]] = []

    def _put(self, queue: str, message: Mapping[str, Any], **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        self.written.append((self._get_message_priority(message), dumps(message).encode()))


class _Transport(virtual.Transport):  # type: ignore[misc]  # as above
    Channel = _Channel


def celery_app(settings: Settings) -> Celery:
    """A stock Celery app for this server, whose connections are to be made with ``connection.public_url``."""
    app = Celery("lock-worker-producer", set_as_current=False)
    user = connection.credentials(settings)
    app.conf.update(
        broker_user=user.username,
        broker_password=user.password,
        broker_use_ssl=connection.tls_options(settings) or None,
        broker_transport_options={
            "socket_timeout": connection.TIMEOUT_SECONDS,
            "socket_connect_timeout": connection.TIMEOUT_SECONDS,
        },
        # A batch is sent at most once: whether to send it again is for whoever reads the message.
        task_publish_retry=False,
    )
    return app


class Producer:
    """A connection that jobs are sent over, from ``with`` to its end."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(settings.LOCK_QUEUE)
        self._client = connection.sync_client(settings)
        self._app = Celery("lock-worker-producer", set_as_current=False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._client)
            try:
                self._redis: Any = (
                    self._client.connection_pool.get_connection()
                )  # redis-py has no types for what it does
            except RedisError as error:
                raise SendError(error) from error
            stack.callback(self._client.connection_pool.release, self._redis)
            self._channel = stack.enter_context(stack.enter_context(Connection(transport=_Transport)).channel())
            self._producer = self._app.amqp.Producer(self._channel, auto_declare=False)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, orders: Sequence[OutgoingJob]) -> list[str]:
        """Send up to ``BATCH_JOBS`` jobs in one round trip, each once, and return their ids.

        Raises:
            SendError: some arrived and others did not, or may not have.
        """
        ids = [order.options.get("task_id") or uuid() for order in orders]
        pushes = [self._push(order, task_id) for order, task_id in zip(orders, ids, strict=True)]
        arrivals: list[Arrival] = []
        trouble: RedisError | None = None
        try:
            self._redis.send_packed_command(self._redis.pack_commands(pushes))
            while len(arrivals) < len(pushes):
                refusal = self._answer()
                arrivals.append(Arrival.YES if refusal is None else Arrival.NO)
                trouble = trouble or refusal
        except RedisError as error:
            trouble = error
        if trouble is not None:
            arrivals += [Arrival.UNKNOWN] * (len(pushes) - len(arrivals))
            raise SendError(trouble, _of(ids, arrivals), arrivals)
        return ids

    def _push(self, order: OutgoingJob, task_id: str) -> tuple[str, str, bytes]:
        self._app.send_task(
            order.task,
            kwargs=order.fields,
            queue=self._keys.queue,
            producer=self._producer,
            ignore_result=True,
            retry=False,
            **{**order.options, "task_id": task_id},
        )
        priority, message = self._channel.written.pop()
        return "LPUSH", self._keys.priority_list(priority), message

    def _answer(self) -> RedisError | None:
        """The answer to one push: None, or why it was refused. Raises where there is none."""
        try:
            # A refusal must not close the connection: the answers to the other pushes are still to come.
            self._redis.read_response(disconnect_on_error=False)
        except RedisError as error:
            if was_refused(error):
                return error
            raise
        return None


def _of(ids: Sequence[str], arrivals: Sequence[Arrival]) -> list[str]:
    return [one for one, arrival in zip(ids, arrivals, strict=True) if arrival is Arrival.YES]
