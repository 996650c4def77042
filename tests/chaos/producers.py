"""Those who send jobs: stock Celery, and clients that push bytes; each in a thread, by the plan.

A send whose answer was lost may have happened. An insistent producer then sends the same again, with the same job id,
as a careful one does; another gives up, and the history says "perhaps".
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import redis as stock
from kombu.utils.json import dumps
from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.redis_sentinels import MASTER_NAME
from tests.chaos import messages
from tests.chaos.history import Message
from tests.chaos.names import QUEUE
from tests.chaos.plan import Route
from tests.chaos.servers import Cluster, NoReplicaHasItError, Sentinels, run_acknowledged
from worker.broker.keys import PRIORITY_SEPARATOR, PRIORITY_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.chaos.plan import Job, Plan, Send
    from tests.chaos.servers import Servers

_TIMEOUT_SECONDS = 1.0
_AGAIN_SECONDS = 0.2
_REFUSED = (OSError, redis.RedisError, OperationalError)

Tell: TypeAlias = "Callable[[bytes], None]"
"""Told the bytes of a message just before they are pushed."""
Push: TypeAlias = "Callable[[Job, Tell], None]"
"""Sends a job's message; raises when nobody said that it has arrived."""


class Channel(stock.Channel):  # type: ignore[misc]
    """Stock Celery's channel that tells which bytes it is about to push, and pushes them once."""

    from_transport_options: ClassVar[tuple[str, ...]] = (*stock.Channel.from_transport_options, "tell")
    tell: Tell
    socket_timeout = socket_connect_timeout = _TIMEOUT_SECONDS

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        self.tell(dumps(message).encode())
        super()._put(queue, message, **kwargs)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        return {**super()._connparams(asynchronous=asynchronous), "retry": Retry(NoBackoff(), 0)}


class Transport(stock.Transport):  # type: ignore[misc]
    """Stock Celery's transport with that channel."""

    Channel = Channel


class ReplicatedChannel(stock.SentinelChannel):  # type: ignore[misc]
    """Stock Celery's channel for sentinels that tells the same, and waits until a replica has the message."""

    from_transport_options: ClassVar[tuple[str, ...]] = (*stock.SentinelChannel.from_transport_options, "tell")
    tell: Tell
    socket_timeout = socket_connect_timeout = _TIMEOUT_SECONDS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        return {**super()._connparams(asynchronous=asynchronous), "retry": Retry(NoBackoff(), 0)}

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        raw = dumps(message).encode()
        self.tell(raw)
        name = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        with self.conn_or_acquire() as client:
            run_acknowledged(client, "LPUSH", name, raw)


class ReplicatedTransport(stock.SentinelTransport):  # type: ignore[misc]
    """Stock Celery's transport with that channel."""

    Channel = ReplicatedChannel


class Producers:
    """All producers of a round.

    ``messages`` is what they have sent so far, and ``key_of`` tells whose a message is; both may be read meanwhile.
    """

    def __init__(self, plan: Plan, servers: Servers) -> None:
        self.messages: list[Message] = []
        self.key_of: dict[bytes, str] = {}
        self._servers = servers
        self._began = 0.0
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(_sends(plan, route), send_by), name=f"producer-{route}")
            for route, send_by in ((Route.CELERY, self._of_celery()), (Route.RAW, self._raw))
        ]

    def start(self) -> None:
        """Begin with the plan."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def are_done(self) -> bool:
        """Whether all has been sent."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, sends: list[tuple[Send, Job]], sender: Callable[[], AbstractContextManager[Push]]) -> None:
        with sender() as push:
            for send, job in sends:
                if self._stopped.wait(max(0.0, self._began + send.at - time.monotonic())):
                    break
                while not self._is_sent(push, job) and send.is_insistent:
                    if self._stopped.wait(_AGAIN_SECONDS):
                        break

    def _is_sent(self, push: Push, job: Job) -> bool:
        raws: list[bytes] = []

        def tell(raw: bytes) -> None:
            raws.append(raw)
            self.key_of[raw] = job.key

        began = time.time()
        is_sure = is_at_primary = False
        try:
            push(job, tell)
            is_sure = True
        except _REFUSED as error:
            is_at_primary = NoReplicaHasItError in {type(error), type(error.__cause__)}  # kombu wraps it
        self.messages += [Message(job.key, raw, began, time.time(), is_sure, is_at_primary) for raw in raws]
        return is_sure

    @contextmanager
    def _raw(self) -> Iterator[Push]:
        options: dict[str, Any] = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
        with self._servers.client(**options) as client:

            def push(job: Job, tell: Tell) -> None:
                raw = messages.by_hand(job, messages.now())
                tell(raw)
                self._servers.run(client, "LPUSH", _list_of(job), raw)

            yield push

    def _of_celery(self) -> Callable[[], AbstractContextManager[Push]]:
        """What Celery sends; it has no transport for a cluster, where each client sends the message itself."""
        return self._raw if isinstance(self._servers, Cluster) else self._celery

    @contextmanager
    def _celery(self) -> Iterator[Push]:
        tells: list[Tell] = [_nobody]  # the transport is made once; of whose message it tells, changes
        url, transport = self._servers.url, "Transport"
        options: dict[str, Any] = {}
        if isinstance(self._servers, Sentinels):
            url, transport = self._servers.sentinel_url, "ReplicatedTransport"
            options = {"master_name": MASTER_NAME}
        app = Celery("producer", broker=url, set_as_current=False)
        app.conf.broker_transport = f"{__name__}:{transport}"
        options["tell"] = lambda raw: tells[0](raw)  # noqa: PLW0108 - not what it is now
        app.conf.broker_transport_options = options

        def push(job: Job, tell: Tell) -> None:
            tells[0] = tell
            app.send_task(
                messages.task_of(job),
                kwargs=messages.arguments(job),
                task_id=job.id,
                queue=QUEUE,
                retry=False,
                countdown=job.countdown or None,
                expires=messages.now() + timedelta(seconds=job.expires) if job.expires else None,
                priority=job.priority,
            )

        try:
            yield push
        finally:
            app.close()


def _nobody(raw: bytes) -> None:
    raise AssertionError(f"a message of nobody's: {raw!r}")


def _sends(plan: Plan, route: Route) -> list[tuple[Send, Job]]:
    found = [(send, job) for job in plan.jobs for send in job.sends if send.route is route]
    return sorted(found, key=lambda pair: pair[0].at)


def _list_of(job: Job) -> str:
    step = max(step for step in PRIORITY_STEPS if step <= job.priority)
    return f"{QUEUE}{PRIORITY_SEPARATOR}{step}" if step else QUEUE
