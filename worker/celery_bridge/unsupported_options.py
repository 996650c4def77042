"""Finds Celery's options that would break a promise of this worker; each stops the start with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.broker.keys import slot_problem
from worker.celery_bridge.command_refusals import queue_problem
from worker.runtime.in_flight import MAX_SLOTS
from worker.runtime.queues import MAX_QUEUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_REFUSED = {
    "autoscale": "--autoscale: jobs are coroutines and cost no process; set CONCURRENCY, and scale pods",
    "purge": "--purge: every job ends in one result event, so none is thrown away; lock-worker cancel --all ends the "
    "jobs that wait, each with its event",
    "beat": "-B: run celery beat as a service of its own; a worker that is scaled would send every job many times",
    "max_tasks_per_child": "--max-tasks-per-child: there is no child process; restart the pod",
    "max_memory_per_child": "--max-memory-per-child: there is no child process; limit the pod's memory",
    "time_limit": "--time-limit: a call's time is ATTEMPT_TIMEOUT_SECONDS, and MAX_ATTEMPTS ends a job",
    "soft_time_limit": "--soft-time-limit: a call's time is ATTEMPT_TIMEOUT_SECONDS, and MAX_ATTEMPTS ends a job",
}


def unsupported(
    options: Mapping[str, Any], pool: type, our_pool: type, *, streams: Collection[str] = (), tag: str = ""
) -> str | None:
    """Return why a worker with these options must not start; None if it may.

    ``streams`` are the names of the results stream and the dead stream, ``tag`` is the hash tag of a cluster.
    """
    reasons = [reason for option, reason in _REFUSED.items() if options.get(option)]
    reasons += [*_slots(options.get("concurrency")), *_queues(options.get("queues"), streams, tag)]
    if pool is not our_pool:
        reasons.insert(0, f"--pool: only the worker's own asyncio pool keeps its promises, not {pool.__module__}")
    if not reasons:
        return None
    return "lock-worker does not start with these options:\n" + "\n".join(f"  - {reason}" for reason in reasons)


def queue_count(options: Mapping[str, Any]) -> int:
    """Return the number of queues that ``-Q`` names; 1 without it."""
    return max(1, len(_queue_names(options.get("queues"))))


def _queue_names(queues: object) -> list[str]:
    """Return the names in ``-Q``, which is one text, or a list if Celery has split it."""
    names = queues.split(",") if isinstance(queues, str) else queues if isinstance(queues, list | tuple) else ()
    return list(dict.fromkeys(names))


def _slots(concurrency: object) -> Iterator[str]:
    if isinstance(concurrency, int) and not 1 <= concurrency <= MAX_SLOTS:
        yield f"-c {concurrency}: a worker runs at least 1 job at once, and {MAX_SLOTS:,} at most"


def _queues(queues: object, streams: Collection[str], tag: str) -> Iterator[str]:
    names = _queue_names(queues)
    for name in names:
        problem = queue_problem(name, streams) or slot_problem(name, tag)
        if problem is not None:
            yield f"-Q {name!r}: {problem}"
    if len(names) > MAX_QUEUES:
        yield f"-Q: {len(names)} queues are named, and a worker takes from {MAX_QUEUES} at most; use more pods"
