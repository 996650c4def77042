"""Decides which commands of Celery's remote control this worker refuses, and why.

Any program that may write to Redis can send a command with any arguments. Celery runs some later, on its own loop,
where an invalid argument would end the worker. Others would break a promise of this worker, or have no effect here and
would be answered as if they had. Celery answers the rest of the wrong ones with the name of a Python exception, and a
traceback in the log; here a sentence says what to send instead.
"""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from celery.platforms import signals
from celery.worker.control import Panel

from settings import key_name_problem
from worker.broker.keys import is_celerys_own
from worker.runtime.queues import MAX_QUEUES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_MEMORY = "inspect stats tells the most memory that was in use, in KiB, as rusage.maxrss"
_NO_EFFECT = {
    "rate_limit": "jobs do not pass Celery's rate limits; set RATE_LIMIT_PER_SECOND, which holds for the whole fleet",
    "time_limit": "a call's time is ATTEMPT_TIMEOUT_SECONDS, and MAX_ATTEMPTS ends a job",
    "autoscale": "jobs are coroutines and cost no process; use pool_grow and pool_shrink, and scale pods",
    "pool_restart": "there is no process to restart; restart the pod",
    "revoke_by_stamped_headers": "stamps have no effect here; revoke jobs by their ids",
    "election": "workers send each other no messages; for work that one of them is to do, use a lock in Redis",
    "memsample": f"memory is not sampled; {_MEMORY}",
    "memdump": f"memory is not sampled; {_MEMORY}",
    "objgraph": f"no graph of objects is drawn; {_MEMORY}",
}
#: Commands that are about the events that this worker sends.
_NEED_EVENTS = {"enable_events", "disable_events", "heartbeat"}
_MAX_QUOTED = 100


def queue_problem(name: object, streams: Collection[str]) -> str | None:
    """Return why no jobs can be taken from a queue of this name, as the end of a sentence; None if they can.

    Args:
        name: the given name, of any type.
        streams: the names of the results stream and the dead stream.
    """
    problem = key_name_problem(name)
    if problem is not None:
        return f"its name {problem[0].lower()}{problem[1:]}"
    if name in streams or is_celerys_own(str(name)):
        return "that name is used for something else"
    return None


def refusal(
    command: str,
    arguments: Mapping[str, Any],
    queues: Collection[str],
    streams: Collection[str],
    *,
    sends_events: bool = True,
) -> str | None:
    """Return why a command is refused, for its sender; None if it is carried out.

    Args:
        command: its name.
        arguments: its arguments as received.
        queues: the queues that this worker takes from or maintains.
        streams: as for :func:`queue_problem`.
        sends_events: this worker sends events: heartbeats at least.
    """
    if command in _NO_EFFECT:
        return f"{command} has no effect here: {_NO_EFFECT[command]}"
    if command not in Panel.data:
        return (
            f"there is no command {command[:_MAX_QUOTED]!r}: celery inspect --list and celery control --list name all"
        )
    if command in _NEED_EVENTS and not sends_events:
        return (
            f"{command} has no effect here: this worker runs --without-heartbeat and sends no events; start it with -E"
        )
    check = _CHECKS.get(command)
    problem = None if check is None else check(arguments, queues, streams)
    problem = problem or _arguments_problem(command, arguments)
    return None if problem is None else f"{command} is refused: {problem}"


def _arguments_problem(command: str, arguments: Mapping[str, Any]) -> str | None:
    """Why a command cannot be called with these arguments at all; None: it can."""
    try:
        signature(Panel.data[command]).bind(None, **arguments)
    except TypeError as error:
        usage = f"{command} {Panel.meta[command].signature or ''}" if command in Panel.meta else command
        return f"{str(error)[:_MAX_QUOTED]}; it is used as: {usage.strip()}"
    return None


def _add_consumer(arguments: Mapping[str, Any], queues: Collection[str], streams: Collection[str]) -> str | None:
    given = {name: value for name, value in arguments.items() if value is not None}
    unknown = sorted(given.keys() - {"queue", "exchange", "exchange_type", "routing_key"})
    if unknown:
        return f"there is no option {unknown[0][:_MAX_QUOTED]!r}; give the queue's name alone"
    queue = given.get("queue")
    problem = queue_problem(queue, streams)
    if problem is not None:
        return f"queue: {problem}"
    for option in ("exchange", "routing_key"):
        if option in given and (problem := key_name_problem(given[option])) is not None:
            return f"{option}: its name {problem[0].lower()}{problem[1:]}"
    if given.get("exchange_type", "direct") != "direct":
        return "exchange_type: jobs are taken from the queue itself, so it can only be direct"
    if queue not in queues and len(queues) >= MAX_QUEUES:
        return (
            f"this worker takes from or looks after {len(queues)} queues, and {MAX_QUEUES} is the most; "
            "cancel one with cancel_consumer, or let other pods take from this one"
        )
    return None


def _cancel_consumer(arguments: Mapping[str, Any], queues: Collection[str], _: Collection[str]) -> str | None:
    queue = arguments.get("queue")
    if not isinstance(queue, str):
        return "queue: give the name of a queue"
    if queue not in queues:
        taken_from = ", ".join(sorted(queues))
        return f"queue: this worker takes no jobs from {queue[:_MAX_QUOTED]!r}; it takes from: {taken_from}"
    return None


def _ids(arguments: Mapping[str, Any], _: Collection[str], __: Collection[str]) -> str | None:
    ids, signal = arguments.get("task_id"), arguments.get("signal")
    given = [ids] if isinstance(ids, str) else ids
    if not (isinstance(given, list) and given and all(isinstance(one, str) for one in given)):
        return "task_id: give the id of a job, or a list of ids"
    try:
        signals.signum(signal or "TERM")
    except (AttributeError, TypeError):
        return "signal: give TERM or leave it out; whatever it is, the job's call is cancelled"
    return None


def _number(arguments: Mapping[str, Any], _: Collection[str], __: Collection[str]) -> str | None:
    number = arguments.get("n", 1)
    return None if isinstance(number, int) and not isinstance(number, bool) else "n: give a whole number of slots"


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], Collection[str], Collection[str]], str | None]] = {
    "add_consumer": _add_consumer,
    "cancel_consumer": _cancel_consumer,
    "revoke": _ids,
    "terminate": _ids,
    "pool_grow": _number,
    "pool_shrink": _number,
}
