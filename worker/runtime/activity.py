"""What this worker does at the moment, as it tells its fleet: slots, jobs, open breakers, the last failed call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.runtime.members import Activity, ApiError, OpenBreaker

if TYPE_CHECKING:
    from worker.flow_control.gates import Gates
    from worker.runtime.clock import ServerClock
    from worker.runtime.control_watch import ControlWatch
    from worker.runtime.in_flight import InFlight


def activity_now(in_flight: InFlight, gates: Gates, clock: ServerClock, controls: ControlWatch) -> Activity:
    """Return what the worker does now. The times are those of the Redis server's clock."""
    now = clock.now_ms() / 1000 - time.monotonic()
    failure, recent = gates.last_failure, gates.recent_calls
    return Activity(
        slots=in_flight.limit,
        in_flight=len(in_flight),
        controls=controls.version,
        breakers=tuple(
            OpenBreaker(breaker.reason, round(now + breaker.opened_at, 3))
            for breaker in gates.breakers
            if breaker.is_open
        ),
        last_error=None
        if failure is None
        else ApiError(round(now + failure.at, 3), failure.problem.status, failure.problem.detail),
        calls=recent.ended,
        failed_calls=recent.failed,
    )
