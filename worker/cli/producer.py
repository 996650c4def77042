"""Sends jobs like any stock Celery producer, and knows for each job if it is in Redis.

``send_task`` of a plain ``celery.Celery`` makes the messages, over a transport that only records them. So what works
here works for every service that sends jobs. Another connection sends them, because kombu's does not report which
commands of a batch Redis refused.
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

#: The jobs in one round trip.
BATCH_JOBS = 1000


@dataclass(frozen=True, slots=True)
class OutgoingJob:
    """A job to send.

    Attributes:
        fields: the job's fields.
        options: Celery's message options: ``task_id``, ``eta``, ``expires``, ``priority``.
        task: the task's name.
    """

    fields: dict[str, Any]
    options: Mapping[str, Any]
    task: str = TASK_NAME


class Arrival(Enum):
    """What is known of a job that was sent."""

    YES = "arrived"
    NO = "did not arrive"
    UNKNOWN = "may have arrived"


class SendError(Exception):
    """Not all jobs of a batch arrived; the message says why.

    Attributes:
        ids: the ids of the jobs that arrived.
        arrivals: one for each job of the batch, in order; empty: there was no batch yet.
    """

    def __init__(self, error: RedisError, ids: Sequence[str] = (), arrivals: Sequence[Arrival] = ()) -> None:
        super().__init__(described(error))
        self.ids = ids
        self.arrivals = arrivals


class _Channel(virtual.Channel):  # type: ignore[misc]  # kombu has no types
    """Records what would be sent: each message with its priority, as kombu's Redis transport writes it."""

    do_restore = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.written: list[tuple[int, bytes]] = []

    def _put(self, queue: str, message: Mapping[str, Any], **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        self.written.append((self._get_message_priority(message), dumps(message).encode()))


class _Transport(virtual.Transport):  # type: ignore[misc]  # as above
    Channel = _Channel


def celery_app(settings: Settings) -> Celery:
    """Return a stock Celery app for this server. Its connections need the URL of ``connection.resolved_url``."""
    app = Celery("lock-worker-producer", set_as_current=False)
    found = connection.credentials(settings)
    *user, password = (None,) if found is None else found.get_credentials()
    app.conf.update(
        broker_user=user[0] if user else None,
        broker_password=password,
        broker_use_ssl=connection.tls_options(settings) or None,
        broker_transport_options={
            "socket_timeout": connection.TIMEOUT_SECONDS,
            "socket_connect_timeout": connection.TIMEOUT_SECONDS,
        },
        # A batch is sent at most once; the operator who reads the message decides on sending it again.
        task_publish_retry=False,
    )
    return app


class Producer:
    """A connection that sends jobs, open within a ``with`` block."""

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

    def send(self, jobs: Sequence[OutgoingJob]) -> list[str]:
        """Send up to ``BATCH_JOBS`` jobs in one round trip, each once, and return their ids.

        Raises:
            SendError: some arrived and others did not, or may not have.
        """
        ids = [job.options.get("task_id") or uuid() for job in jobs]
        pushes = [self._push(job, task_id) for job, task_id in zip(jobs, ids, strict=True)]
        arrivals: list[Arrival] = []
        first_error: RedisError | None = None
        try:
            self._redis.send_packed_command(self._redis.pack_commands(pushes))
            while len(arrivals) < len(pushes):
                refusal = self._answer()
                arrivals.append(Arrival.YES if refusal is None else Arrival.NO)
                first_error = first_error or refusal
        except RedisError as error:
            first_error = error
        if first_error is not None:
            arrivals += [Arrival.UNKNOWN] * (len(pushes) - len(arrivals))
            raise SendError(first_error, _arrived(ids, arrivals), arrivals)
        return ids

    def _push(self, job: OutgoingJob, task_id: str) -> tuple[str, str, bytes]:
        self._app.send_task(
            job.task,
            kwargs=job.fields,
            queue=self._keys.queue,
            producer=self._producer,
            ignore_result=True,
            retry=False,
            **{**job.options, "task_id": task_id},
        )
        priority, message = self._channel.written.pop()
        return "LPUSH", self._keys.priority_list(priority), message

    def _answer(self) -> RedisError | None:
        """Return None for a successful push, or its refusal; raises if there is no answer."""
        try:
            # A refusal must not close the connection: the answers to the other pushes are still to come.
            self._redis.read_response(disconnect_on_error=False)
        except RedisError as error:
            if was_refused(error):
                return error
            raise
        return None


def _arrived(ids: Sequence[str], arrivals: Sequence[Arrival]) -> list[str]:
    return [one for one, arrival in zip(ids, arrivals, strict=True) if arrival is Arrival.YES]
