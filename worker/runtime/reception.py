"""Where Celery's thread meets the asyncio side: from which queues to take, and what an operator may ask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.observe import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.flow_control.flow_control import FlowControl
    from worker.runtime.executor import Executor

#: Seconds without an answer of Redis, or of a take, after which this worker does not count as ready.
_SILENT_SECONDS = 5.0


class Reception:
    """Tells the executor what Celery wants, and others how the executor does.

    Args:
        executor: takes and runs the jobs.
        flow: this process's gates.
        is_job_queue: whether a queue holds jobs (and not Celery's own remote control).
    """

    def __init__(self, *, executor: Executor, flow: FlowControl, is_job_queue: Callable[[str], bool]) -> None:
        self._executor = executor
        self._flow = flow
        self.is_job_queue = is_job_queue

    def __json__(self) -> str:
        """What ``inspect stats`` shows of it: kombu cannot answer with what it cannot turn into JSON."""
        return repr(self)

    def consume(self, queue: str) -> None:
        """Take jobs from this queue."""
        self._executor.consume(queue)

    def cancel(self, queue: str) -> None:
        """Take no more jobs from this queue; returns when that is so."""
        self._executor.cancel_queue(queue)

    def reasons_not_ready(self) -> list[str]:
        """Why this worker takes no jobs now, as stable words; none: it does, or works on as many as it may."""
        in_flight, took_at = self._executor.in_flight, self._executor.fetcher.last_fetch_at
        if in_flight.is_closed:
            return ["stopping"]
        reasons = [] if self._executor.clock.seconds_since_sync < _SILENT_SECONDS else ["redis_unreachable"]
        open_reasons = [breaker.reason for breaker in self._flow.breakers if breaker.is_open]
        is_idle = took_at is None or time.monotonic() - took_at > _SILENT_SECONDS
        if is_idle and in_flight.free_slots() and not open_reasons and not self._flow.is_paused:
            reasons.append("takes_no_jobs")
        return reasons + [reason for reason in open_reasons if reason == self._flow.token.reason]

    def fleet_held_back_by(self) -> list[str]:
        """What holds back the whole fleet, and is no fault of this pod: the API is down, or asked for a pause."""
        found = [self._flow.api.reason] if self._flow.api.is_open else []
        return [*found, "paused"] if self._flow.is_paused else found

    def refresh_gauges(self) -> None:
        """Bring the gauges of what this worker holds up to date."""
        metrics.IN_FLIGHT.set(len(self._executor.in_flight))
        metrics.CONCURRENCY.set(self._executor.in_flight.limit)
        for breaker in self._flow.breakers:
            metrics.BREAKER_OPEN.labels(breaker.reason).set(breaker.is_open)
        metrics.FLEET_PAUSED.labels("api").set(self._flow.is_paused)
        metrics.FLEET_LIMIT.set(self._flow.fleet.rate)
