"""Whether this worker takes jobs now, and if not, why: for ``/readyz`` and for the gauges."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.observe import metrics, process_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.flow_control.gates import Gates
    from worker.runtime.clock import ServerClock
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.fetcher import Fetcher
    from worker.runtime.in_flight import InFlight

#: Seconds without an answer of Redis, or of a take, after which this worker does not count as ready.
_SILENT_SECONDS = 5.0
#: The same for the metric.
_DOWN_SECONDS = 10.0


class Readiness:
    """Reads the state of one worker. Its methods may be called from any thread.

    Args:
        in_flight: the jobs in flight.
        fetcher: takes jobs.
        clock: the server's clock.
        gates: what holds this worker back.
        controls: what operators asked for.
        has_queues: whether it is to take jobs at all: remote control may have cancelled all its queues.
    """

    def __init__(
        self,
        *,
        in_flight: InFlight,
        fetcher: Fetcher,
        clock: ServerClock,
        gates: Gates,
        controls: ControlWatch,
        has_queues: Callable[[], bool],
    ) -> None:
        self._in_flight = in_flight
        self._fetcher = fetcher
        self._clock = clock
        self._gates = gates
        self._controls = controls
        self._has_queues = has_queues
        self._read_at = float("-inf")

    def note_read(self) -> None:
        """Note that the fleet's state was read from Redis just now: of a worker without queues, nothing else tells."""
        self._read_at = time.monotonic()

    def reasons_not_ready(self) -> list[str]:
        """Return why this worker cannot work now, as stable labels; none: it can."""
        if self._in_flight.is_closed:
            return ["stopping"]
        reasons = [] if self._seconds_since_answer() < _SILENT_SECONDS else ["redis_unreachable"]
        open_reasons = [breaker.reason for breaker in self._gates.breakers if breaker.is_open]
        # Just after a pause, or after an outage of the API, the last take was before it.
        last_at = max(self._fetcher.last_fetch_at or float("-inf"), self._gates.held_back_at)
        is_idle = time.monotonic() - last_at > _SILENT_SECONDS
        is_free = self._in_flight.free_slots() and not open_reasons and not self._gates.is_paused
        if is_idle and is_free and not reasons and self._has_queues():
            reasons.append("takes_no_jobs")
        return reasons + [reason for reason in open_reasons if reason == self._gates.token.reason]

    def fleet_held_back_by(self) -> list[str]:
        """Return what holds this pod back and is no fault of it.

        For the whole fleet: the API is down, a pause, a hold. For this pod: somebody cancelled all its queues.
        """
        found = {
            self._gates.api.reason: self._gates.api.is_open,
            "queues_cancelled": not self._has_queues(),
            "paused": self._gates.is_paused,
            "held": self._controls.is_hold_in_force,
        }
        return [reason for reason, holds_back in found.items() if holds_back]

    def refresh_gauges(self) -> None:
        """Set the gauges to the state of this worker."""
        metrics.IN_FLIGHT.set(len(self._in_flight))
        metrics.CONCURRENCY.set(self._in_flight.limit)
        for breaker in self._gates.breakers:
            metrics.BREAKER_OPEN.labels(breaker.reason).set(breaker.is_open)
        process_metrics.REDIS_UP.set(self._seconds_since_answer() < _DOWN_SECONDS)

    def _seconds_since_answer(self) -> float:
        return min(self._clock.seconds_since_sync, time.monotonic() - self._read_at)
