"""Whether a process is over."""

from __future__ import annotations

import os
import time

DEADLINE_SECONDS = 10.0


def has_ended(pid: int) -> bool:
    """Wait until there is no such process; False when it is still there after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.002)
    return False
