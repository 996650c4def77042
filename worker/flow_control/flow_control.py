"""Flow control of one process: how many jobs it takes, from where, and what a failed call costs its job.

The runtime asks the gates before each take and reports its result; the handler reports the result of each call to the
observer. Both run on the asyncio loop. ``docs/flow-control.md`` has the whole design.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from worker.flow_control.api_gate import ApiGate
from worker.flow_control.call_observer import CallObserver
from worker.flow_control.calls_under_way import CallsUnderWay
from worker.flow_control.fleet_counts import FleetCounts
from worker.flow_control.fleet_limit import FleetLimit
from worker.flow_control.flow_parts import FlowParts, InFlight
from worker.flow_control.gates import Gates
from worker.flow_control.pod_breakers import PodBreakers
from worker.flow_control.resource_shortage import ResourceShortage
from worker.flow_control.token_gate import TokenGate

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from worker.broker.records import FleetNews


class FlowControl:
    """Puts the parts together for the two that use them: ``gates`` for the runtime, ``calls`` for the handler.

    Args:
        in_flight: the jobs that this worker has.
        name: this worker's name in Redis.
        failures: the failures in a row that open the breaker; 0 for no breaker.
        is_rate_limited: RATE_LIMIT_PER_SECOND is set, so that every call needs a permit.
        max_pause: the longest wait that the API may ask for, in seconds.
        changes: called when :meth:`Gates.change` has something to write.
        restore_attempts: lowers the attempts of jobs that wait in Redis, by the key of their runs.
        server_ms: returns the time of the Redis server, in milliseconds.
        token_is_new: returns True if the token has changed since the API refused it.
        on_news: called with each state of the fleet that Redis answered.
        clock: returns monotonic seconds.
        rng: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        in_flight: InFlight,
        *,
        name: str,
        failures: int,
        is_rate_limited: bool,
        max_pause: float,
        changes: Callable[[], None],
        restore_attempts: Callable[[Counter[tuple[str, str]]], None],
        server_ms: Callable[[], float],
        token_is_new: Callable[[], bool] = lambda: False,
        on_news: Callable[[FleetNews], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        counts = FleetCounts(clock)
        token = TokenGate(counts, is_new=token_is_new, clock=clock, rng=rng)
        api = ApiGate(counts, failures=failures, restore_attempts=restore_attempts, clock=clock, rng=rng)
        limit = FleetLimit(
            counts,
            name=name, is_rate_limited=is_rate_limited, max_pause=max_pause, changes=changes,
            server_ms=server_ms, clock=clock, rng=rng,
        )  # fmt: skip
        parts = FlowParts(
            in_flight=in_flight,
            counts=counts,
            calls=CallsUnderWay(clock),
            limit=limit,
            token=token,
            api=api,
            breakers=PodBreakers((token.breaker, api.breaker), clock),
            shortage=ResourceShortage(clock),
        )
        self.gates = Gates(parts, clock, on_news)
        self.calls = CallObserver(parts)
