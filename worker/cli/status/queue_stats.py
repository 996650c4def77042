"""Reads the state of a queue in one round trip, and changes nothing.

It uses no transaction, because a server above its maxmemory refuses every MULTI, and operators need this state then. So
a job that moves at the same time may be counted twice, or not at all.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.broker.keys import PRIORITY_STEPS, Keys
from worker.broker.move_limits import BREAKER_REPORT_MS
from worker.flow_control.limit import from_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redis import Redis

    from settings import Settings


@dataclass(frozen=True, slots=True)
class FleetLimit:
    """The fleet's rate limit that follows from refusals of the API.

    Attributes:
        rate: calls a second.
        by: the worker that was refused; empty: unknown.
        status: the HTTP status of the refusal; 0: unknown.
    """

    rate: float
    by: str
    status: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The jobs in each state, and times in seconds, which are None if there is no such job.

    Attributes:
        server_seconds: the server's time.
        priorities: the messages in each of the producers' lists, by its first priority.
        arrived: messages that woke a worker and are not taken yet.
        requeued: jobs that are ready again after a delay, a release or a recovery.
        retries: the same for jobs whose call failed.
        suspects: jobs that workers died on, ready to be run alone.
        ready: the sum of all these.
        oldest_ready: the longest that any new ready job can have waited.
        delayed: jobs that wait until they are due.
        next_due: the time until the first of them is due; negative: it is overdue.
        in_flight: jobs that workers have.
        paused: the rest of a pause that the API asked for.
        limit: the rate limit that follows from the API's refusals.
        open_breakers: the report of each worker with an open breaker.
        dead_letters: entries in the dead letter stream.
        results: events in the results stream.
        last_maintenance: the time since a worker last promoted or recovered jobs, which every worker does all the time.
        totals: counts since the queue was first used, by name.
    """

    server_seconds: float
    priorities: dict[int, int]
    arrived: int
    requeued: int
    retries: int
    suspects: int
    ready: int
    oldest_ready: float | None
    delayed: int
    next_due: float | None
    in_flight: int
    paused: float | None
    limit: FleetLimit | None
    open_breakers: dict[str, str]
    dead_letters: int
    results: int
    last_maintenance: float | None
    totals: dict[str, int]


def read_queue_stats(client: Redis, settings: Settings) -> QueueStats:
    """Read the state of LOCK_QUEUE."""
    keys = Keys(settings.LOCK_QUEUE)
    with client.pipeline(transaction=False) as look:
        look.time()
        for name in (*keys.priority_lists, keys.arrived, keys.requeued, keys.retries, keys.suspects):
            look.llen(name)
        look.zcard(keys.delayed)
        look.zrange(keys.delayed, 0, 0, withscores=True)
        look.zcard(keys.leases)
        look.pttl(keys.pause)
        look.hmget(keys.limit, ["rate", "state"])
        look.hgetall(keys.breakers)
        look.xlen(settings.DEAD_STREAM)
        look.xlen(settings.RESULTS_CHANNEL)
        look.hmget(keys.maintenance, ["empty_at", "promoted_at"])
        look.hgetall(keys.counters)
        (seconds, microseconds), *answers = look.execute()
    now = seconds + microseconds / 1_000_000
    priorities, answers = answers[: len(keys.priority_lists)], answers[len(keys.priority_lists) :]
    arrived, requeued, retries, suspects, delayed, first_due, in_flight, *answers = answers
    paused_ms, limit, breakers, dead, results, maintenance, counters = answers
    empty_at, promoted_at = maintenance
    ready = sum(priorities) + arrived + requeued + retries + suspects
    return QueueStats(
        server_seconds=now,
        priorities=dict(zip(PRIORITY_STEPS, priorities, strict=True)),
        arrived=arrived,
        requeued=requeued,
        retries=retries,
        suspects=suspects,
        ready=ready,
        # Messages have no time of arrival, but at this time the lists were empty.
        oldest_ready=now - _natural(empty_at) / 1000 if ready and _natural(empty_at) else None,
        delayed=delayed,
        next_due=_due(first_due[0][1], now) if first_due else None,
        in_flight=in_flight,
        paused=paused_ms / 1000 if paused_ms > 0 else None,
        limit=_limit(*limit),
        open_breakers=dict(_open_breakers(breakers, now)),
        dead_letters=dead,
        results=results,
        last_maintenance=now - _natural(promoted_at) / 1000 if _natural(promoted_at) else None,
        totals={name.decode(errors="replace"): _natural(count) for name, count in sorted(counters.items())},
    )


def _natural(text: bytes | None) -> int:
    """Return a number as a worker wrote it; 0 for any other text."""
    return int(text) if text and re.fullmatch(rb"\d{1,15}", text) else 0


def _due(at_ms: float, now: float) -> float | None:
    """Return the seconds until a time; None for an infinite one, as JSON has no infinity."""
    return at_ms / 1000 - now if math.isfinite(at_ms) else None


def _limit(rate: bytes | None, state: bytes | None) -> FleetLimit | None:
    """Return the limit as takes read it; any text that is no number means none."""
    if rate is None or not re.fullmatch(rb"\d{1,15}(\.\d*)?", rate) or float(rate) == 0:
        return None
    limit = from_json(state or b"")
    return FleetLimit(float(rate), limit.by, limit.status)


def _open_breakers(reports: Mapping[bytes, bytes], now: float) -> Iterator[tuple[str, str]]:
    """Each worker's report of its open breakers, the expired ones left out."""
    for worker, report in sorted(reports.items()):
        at_ms, _, text = report.partition(b" ")
        if re.fullmatch(rb"\d{1,15}", at_ms) and abs(now * 1000 - int(at_ms)) <= BREAKER_REPORT_MS:
            yield worker.decode(errors="replace"), text.decode(errors="replace")
