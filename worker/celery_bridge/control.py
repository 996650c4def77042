"""Celery's remote control in a worker: what is answered here, in place of Celery or before it.

Before each command Celery is shown the jobs in flight. A command that would do harm or nothing is refused
(``worker.celery_bridge.command_refusals``). Commands that change the slots, or cancel a queue, are carried out here,
because Celery would answer before it knows what came of them. Celery carries out the others.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.app.control import Control as StockControl
from celery.platforms import EX_OK
from celery.worker import state
from kombu import Producer, pidbox
from redis.exceptions import RedisError

from worker.broker.keys import slot_problem
from worker.celery_bridge.command_refusals import refusal
from worker.runtime.in_flight import MAX_SLOTS
from worker.runtime.open_files import shortage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

logger = logging.getLogger(__name__)

#: Commands that change the number of slots, and in which direction.
_RESIZES = {"pool_grow": 1, "pool_shrink": -1}


class Commands:
    """The commands that Celery is not to carry out.

    Args:
        queues: returns the queues that this worker takes from or looks after.
        streams: the names of the streams that results and dead letters go to.
        remember_revoked: notes in Redis that job ids are revoked, so that workers know it which start later.
        cluster_tag: the hash tag that the names of all queues must hold; empty without a cluster.
    """

    def __init__(
        self,
        queues: Callable[[], Collection[str]],
        streams: Collection[str],
        *,
        remember_revoked: Callable[[Sequence[str]], None],
        cluster_tag: str = "",
    ) -> None:
        self._cluster_tag = cluster_tag
        self._remember_revoked = remember_revoked
        self._queues = queues
        self._streams = streams

    def answer(self, consumer: Any, command: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a command that Celery is not to carry out; None: it is. ``consumer`` is Celery's."""
        dispatcher = consumer.event_dispatcher
        problem = refusal(command, arguments, self._queues(), self._streams, sends_events=dispatcher is not None)
        problem = problem or self._in_another_slot(command, arguments)
        problem = problem or self._lack_of_files(consumer, command, arguments)
        if problem is not None:
            logger.warning("control_refused", extra={"command": command, "reason": problem})
            return {"error": problem}
        if command in _RESIZES:
            return {"ok": self._resize(consumer, _slots_more(command, arguments))}
        if command == "cancel_consumer":  # Celery answers first and cancels then
            consumer.cancel_task_queue(arguments["queue"])
            return {"ok": f"no longer consuming from {arguments['queue']}"}
        if command in {"revoke", "terminate"}:  # Celery carries it out too, for the jobs that this worker has
            given = arguments.get("task_id")
            self._remember_revoked([given] if isinstance(given, str) else list(given or ()))
        if command == "shutdown":  # Celery's own answers nothing, and celery control says that no worker replied
            consumer.app.lifetime.asked_to_stop("remote control")
            state.should_stop = EX_OK  # type: ignore[assignment]  # the stubs know of None only
            return {"ok": "this worker takes no more jobs, finishes or releases those in flight, and ends"}
        if command == "disable_events" and not dispatcher.groups:
            # With -E the groups are empty, which means all, and Celery would find no group to remove.
            dispatcher.groups.update({"worker", "task"})
        return None

    def _in_another_slot(self, command: str, arguments: Mapping[str, Any]) -> str | None:
        """Return why a queue cannot be added on a cluster; None: it can."""
        problem = slot_problem(arguments.get("queue"), self._cluster_tag) if command == "add_consumer" else None
        return None if problem is None else f"{command} is refused: queue: {problem}"

    def _lack_of_files(self, consumer: Any, command: str, arguments: Mapping[str, Any]) -> str | None:
        """Return why the limit of open files does not allow what a command asks for, even in part; None: it does."""
        slots, queues = consumer.pool.limit, self._queues()
        lack = None
        if command in _RESIZES and _slots_more(command, arguments) > 0 and slots < MAX_SLOTS:
            lack = shortage(slots + 1, len(queues))
        elif command == "add_consumer" and arguments.get("queue") not in queues:
            lack = shortage(slots, len(queues) + 1)
        return None if lack is None else f"{command} is refused: {lack}"

    def _resize(self, consumer: Any, more: int) -> str:
        pool = consumer.pool
        wanted = pool.limit + more
        pool.grow(more)
        # Celery shows this number in its statistics; kombu reads no jobs, so it has no other effect.
        consumer.initial_prefetch_count = consumer.qos.value = pool.limit
        answer = f"this worker runs up to {pool.limit:,} jobs at once now"
        if pool.limit == wanted:
            return answer
        lack = shortage(min(wanted, MAX_SLOTS), len(self._queues())) if more > 0 else None
        if lack is None:
            return f"{answer}: at least 1 and at most {MAX_SLOTS:,} are possible"
        logger.warning("pool_limited", extra={"slots": pool.limit, "wanted": wanted, "reason": lack})
        return f"{answer}: {lack}"


def _slots_more(command: str, arguments: Mapping[str, Any]) -> int:
    number: int = arguments.get("n", 1)
    return number * _RESIZES[command]


class _Node(pidbox.Node):  # type: ignore[misc]
    def handle(self, method: str, arguments: dict[str, Any] | None = None) -> Any:
        """Show Celery the jobs in flight, then answer a command."""
        consumer = self.state.consumer
        consumer.app.monitoring.sync()
        answer = consumer.app.commands.answer(consumer, method, arguments or {})
        return super().handle(method, arguments) if answer is None else answer

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **_: Any) -> None:
        """Send an answer; whoever asked waits a second for it, so where Redis does not take it, it is given up.

        It goes by Celery's connection, on which nothing is tried without end, and not by one of the app's pool.
        """
        try:
            self.mailbox._publish_reply(  # noqa: SLF001 - as kombu's own does
                data,
                exchange,
                routing_key,
                ticket,
                channel=self.channel,
                producer=Producer(self.channel, auto_declare=False),
                serializer=self.mailbox.serializer,
            )
        except (RedisError, OSError) as error:
            logger.warning("control_not_answered", extra={"error": str(error)})


class _Mailbox(StockControl.Mailbox):  # type: ignore[misc]
    node_cls = _Node


class Control(StockControl):
    """Celery's remote control, with a node that asks :class:`Commands` first."""

    Mailbox = _Mailbox
