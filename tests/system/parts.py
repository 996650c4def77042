"""Parts of a worker as its composition root puts them together, for tests of some of them alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.flow_control.flow_control import FlowControl

if TYPE_CHECKING:
    from worker.runtime.in_flight import InFlight


def flow_of(in_flight: InFlight, *, failures: int = 0) -> FlowControl:
    """Flow control that never opens a breaker, unless told so, and writes nothing."""
    return FlowControl(
        in_flight,
        name="w",
        failures=failures,
        is_rate_limited=False,
        max_pause=300,
        changes=lambda: None,
        restore_attempts=lambda _: None,
        server_ms=lambda: time.time() * 1000,
    )
