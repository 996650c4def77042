"""Sends jobs as any stock Celery producer does: ``send_task`` over kombu's own Redis transport, in batches.

The worker's own app is not used: it would need a token, and what works for a plain ``celery.Celery`` here works for
every service that sends jobs.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from celery import Celery, uuid
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from tasks.lock_conversation import TASK_NAME
from worker.broker import connection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from settings import Settings

#: Jobs in one round trip.
BATCH_JOBS = 1000


@dataclass(frozen=True, slots=True)
class Order:
    """A job to be sent.

    Attributes:
        fields: what is asked for.
        options: Celery's message options: ``task_id``, ``eta``, ``expires``, ``priority``.
        task: the task's name.
    """

    fields: dict[str, Any]
    options: Mapping[str, Any]
    task: str = TASK_NAME


class SendError(Exception):
    """A batch could not be sent, or it is not known whether all of it was; the message says why."""


class Producer:
    """A connection that jobs are sent over, from ``with`` to its end."""

    def __init__(self, found: Settings) -> None:
        self._queue = found.LOCK_QUEUE
        self._url = connection.public_url(found)
        self._app = Celery("lock-worker-producer", set_as_current=False)
        user = connection.credentials(found)
        self._app.conf.update(
            broker_user=user.username,
            broker_password=user.password,
            broker_use_ssl=connection.tls_options(found) or None,
            broker_transport_options={
                "socket_timeout": connection.TIMEOUT_SECONDS,
                "socket_connect_timeout": connection.TIMEOUT_SECONDS,
            },
            # A batch is sent at most once: whether to send it again is for whoever reads the message.
            task_publish_retry=False,
        )

    def __enter__(self) -> Self:
        # The URL is named here, because Celery prefers one in CELERY_BROKER_URL to that of its settings.
        with ExitStack() as stack:
            broker = stack.enter_context(self._app.connection_for_write(self._url))
            try:
                channel = stack.enter_context(broker.channel())  # what fails here failed before anything was sent
            except (KombuError, RedisError, OSError) as error:
                raise SendError(_reason(error)) from error
            self._producer = stack.enter_context(self._app.amqp.Producer(channel, auto_declare=False))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, orders: Sequence[Order]) -> list[str]:
        """Send up to ``BATCH_JOBS`` jobs in one round trip, and return their ids.

        Raises:
            SendError: some may have been sent, or none.
        """
        ids = [order.options.get("task_id") or uuid() for order in orders]
        try:
            with self._producer.batch(max_size=BATCH_JOBS):
                for task_id, order in zip(ids, orders, strict=True):
                    self._app.send_task(
                        order.task,
                        kwargs=order.fields,
                        queue=self._queue,
                        producer=self._producer,
                        ignore_result=True,
                        **{**order.options, "task_id": task_id},
                    )
        except (KombuError, RedisError, OSError) as error:
            raise SendError(_reason(error)) from error
        return ids


def _reason(error: BaseException) -> str:
    """What lies at the bottom: kombu wraps what happened in sentences of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
