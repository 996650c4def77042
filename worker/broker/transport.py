"""kombu's Redis transport with our way of taking jobs: nothing is ever popped into a worker that could die with it.

Only consuming from job queues is changed. Celery's remote control, its events and everything that publishes go
through kombu's own code. A job queue is read on one connection by turns: a ``take``; when that found nothing, a
``BLMOVE`` from the producers' list to our ``arrived`` list, which wakes exactly one waiting worker per message and
leaves the message in Redis; then a ``take`` again.

What a lost connection means here: nothing. Jobs in flight belong to their leases, not to a connection, so every way
of kombu's to push them back is switched off.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from kombu.asynchronous import get_event_loop
from kombu.transport import redis as stock
from kombu.transport import virtual
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError
from redis.retry import Retry

from worker.broker.connection import TIMEOUT_SECONDS
from worker.broker.moves import TakeState, read_take, take_command
from worker.gate import Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.broker.connection import Credentials
    from worker.broker.keys import Keys
    from worker.broker.moves import Rules, Taken
    from worker.gate import Admit, Answer

logger = logging.getLogger(__name__)

#: How long one wait for a message lasts; after it, take looks at the other lists. In seconds.
WAIT_SECONDS = 0.5
#: The least time between two takes while there is a backlog and most slots are busy. In seconds.
_SPACING_SECONDS = 0.004
#: How long to leave the server alone after it refused a call. In seconds.
_REFUSED_SECONDS = 1.0
#: How long to leave a server alone that became a replica. In seconds.
_READ_ONLY_SECONDS = 0.5
#: How long a closed gate is believed before it is asked again. In seconds.
_ASK_AGAIN_SECONDS = 1.0


class HandsView(Protocol):
    """How much the worker holds and wants."""

    def __len__(self) -> int: ...

    is_draining: bool

    def wanted(self) -> int:
        """How many jobs the worker has free slots for."""


class Desk(Protocol):
    """Whom the transport takes jobs for."""

    is_job_queue: Callable[[str], bool]

    @property
    def hands(self) -> HandsView:
        """What the worker holds and wants."""

    @property
    def rules(self) -> Rules:
        """The settings of the moves."""

    @property
    def worker(self) -> str:
        """The worker's name in Redis."""

    def keys(self, queue: str) -> Keys:
        """A queue's keys."""

    def next_token(self) -> str:
        """A lease token for a take."""

    def waits(self, client_id: int | None) -> None:
        """Told the id of a connection that waits for jobs, or that it waits no longer."""

    def ask(self) -> Answer:
        """How many jobs to take now, or how long to wait."""

    def unused(self) -> None:
        """Told that a take found nothing."""

    def hold(self, taken: Taken) -> None:
        """Told what a take brought."""

    def hand_back(self, taken: Taken) -> None:
        """Told what a take brought when nobody is there to run it."""

    def receive(self, taken: Taken) -> None:
        """Told to begin with what a take brought."""


class QoS(virtual.QoS):  # type: ignore[misc]
    """How much to consume: what the desk wants.

    Which jobs are unacknowledged stands in Redis, so nothing is kept here.
    """

    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Whether to go on: an answer is on its way and must be read, or jobs are wanted."""
        channel = self.channel
        return not channel.takes_jobs or channel.is_busy or channel.desk.hands.wanted() > 0

    def append(self, message: Any, delivery_tag: str) -> None:
        """A job's state is its record in Redis."""

    def restore_unacked(self) -> list[Any]:
        """Leases outlive a connection."""
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Leases outlive a connection."""

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Lost jobs are found by the upkeep."""


class Channel(stock.Channel):  # type: ignore[misc]
    """A channel that takes jobs by atomic moves."""

    QoS = QoS
    from_transport_options: ClassVar[tuple[str, ...]] = (
        *stock.Channel.from_transport_options,
        "desk",
        "credentials",
    )

    desk: Desk
    credentials: Credentials
    socket_timeout = TIMEOUT_SECONDS
    socket_connect_timeout = TIMEOUT_SECONDS
    socket_keepalive = True

    _reading: Callable[[Any], None] | None = None
    _asked_queue = ""
    _empty_queues = 0
    _whole_text = False
    _client_id: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._not_before: dict[str, float] = {}
        self._closed_until = 0.0
        self._full_until = self._timed_for = 0.0
        super().__init__(*args, **kwargs)

    @property
    def takes_jobs(self) -> bool:
        """Whether this channel consumes from a job queue."""
        return any(self.desk.is_job_queue(queue) for queue in self._active_queues)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is on its way."""
        return bool(self._in_poll)

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

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Called when jobs are wanted and no answer is on its way: send the next command."""
        if not self.takes_jobs:
            super()._brpop_start(timeout)
            return
        now = time.monotonic()
        hands = self.desk.hands
        if now < self._full_until and hands.wanted() < len(hands):
            # A moment later more slots will be free, and one take fills them all.
            if self._timed_for != self._full_until:
                self._timed_for = self._full_until
                self._look_again_in(self._full_until - now)
            return
        queues = [
            queue
            for queue in self._queue_cycle.consume(len(self.active_queues))
            if now >= self._not_before.get(queue, now)
        ]
        if not queues or now < self._closed_until:
            return
        if self._empty_queues >= len(queues):
            self._send_wait(queues[0])
            return
        answer = self.desk.ask()
        if isinstance(answer, Wait):
            self._gate_closed(answer.seconds)
        elif answer.jobs > 0:
            self._send_take(queues[0], answer)

    def _brpop_read(self, **options: Any) -> bool | None:
        """Called when an answer is there: read it and act on it."""
        if not self.takes_jobs and self._reading is None:
            found: bool | None = super()._brpop_read(**options)
            return found
        reading, self._reading = self._reading, None
        connection = self.client.connection
        self.desk.waits(None)
        try:
            answer = connection.read_response()
        except NoScriptError:  # a restarted server; it refused before anything ran
            self._whole_text = True
            return None
        except ReadOnlyError as error:  # this server is a replica now: find the primary by connecting anew
            connection.disconnect()
            time.sleep(_READ_ONLY_SECONDS)  # a failover takes its time, and nothing here can be done meanwhile
            raise RedisConnectionError(str(error)) from error
        except ResponseError as error:
            told = {"queue": self._asked_queue, "error": str(error), "wait_seconds": _REFUSED_SECONDS}
            logger.error("take_refused", extra=told)  # noqa: TRY400 - says it all
            self._not_before[self._asked_queue] = time.monotonic() + _REFUSED_SECONDS
            self._empty_queues = 0  # take before the next wait: a full server refuses the wait alone
            return None
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            self._in_poll = None
        if reading is not None:
            reading(answer)
        return None

    def _send(self, queue: str, reading: Callable[[Any], None], *command: Any) -> None:
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self._asked_queue, self._reading = queue, reading
        connection.send_command(*command)

    def _gate_closed(self, seconds: float) -> None:
        """Take nothing for a while; ask again within a second, should the gate open early."""
        seconds = min(seconds, _ASK_AGAIN_SECONDS)
        self._closed_until = time.monotonic() + seconds
        self._look_again_in(seconds)

    @staticmethod
    def _look_again_in(seconds: float) -> None:
        hub = get_event_loop()
        if hub is not None:
            hub.call_later(seconds, _wake)

    def _send_take(self, queue: str, admitted: Admit) -> None:
        desk, keys, token = self.desk, self.desk.keys(queue), self.desk.next_token()
        sent_at = time.monotonic()

        def read(answer: Any) -> None:
            self._taken(queue, read_take(answer, keys, desk.rules, token=token, sent_at=sent_at, wanted=admitted.jobs))

        call = take_command(
            keys, desk.rules,
            token=token, worker=desk.worker, wanted=admitted.jobs, held=len(desk.hands),
            is_probe=admitted.is_probe, whole_text=self._whole_text,
        )  # fmt: skip
        self._whole_text = False
        self._send(queue, read, *call)

    def _taken(self, queue: str, taken: Taken) -> None:
        if self._closing or queue not in self._active_queues:  # cancelled while the answer was on its way
            self.desk.hand_back(taken)
            return
        self.desk.hold(taken)
        self.desk.hands.is_draining = taken.state is TakeState.DRAIN
        if taken.is_all:
            self._empty_queues += 1
        else:
            self._empty_queues = 0
            self._full_until = self._brpop_sent_at + _SPACING_SECONDS
        if not taken.jobs:
            self.desk.unused()
        if taken.wait_ms:
            self._gate_closed(taken.wait_ms / 1000)
        self._queue_cycle.rotate(queue)
        self.desk.receive(taken)

    def _send_wait(self, queue: str) -> None:
        keys = self.desk.keys(queue)
        if self._client_id is None:
            connection = self.client.connection
            connection.send_command("CLIENT", "ID")
            self._client_id = connection.read_response()
        self._send(queue, self._waited, "BLMOVE", keys.stock[0], keys.arrived, "RIGHT", "LEFT", WAIT_SECONDS)
        self.desk.waits(self._client_id)

    def _waited(self, _: Any) -> None:
        self._empty_queues = 0

    def _queue_bind(self, *binding: Any) -> None:
        """Bind a queue; where the server will not note it, go on: nothing here needs the note."""
        try:
            super()._queue_bind(*binding)
        except ResponseError as error:
            logger.warning("binding_not_noted", extra={"error": str(error)})

    def _on_connection_disconnect(self, connection: Any) -> None:
        self._client_id = None
        if self._in_poll is connection:
            self._reading = None
        super()._on_connection_disconnect(connection)

    def _basic_cancel(self, consumer_tag: str) -> None:
        super()._basic_cancel(consumer_tag)
        if self._reading is not None and not self._active_queues:
            self._brpop_read()  # jobs on their way to us go back at once, not when their leases are over


def _wake() -> None:
    """Nothing: that a timer fires is what ends the loop's sleep."""


class Transport(stock.Transport):  # type: ignore[misc]
    """The worker's transport; it needs the options ``desk`` and ``credentials``."""

    Channel = Channel
