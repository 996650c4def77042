"""Whether the machine is busy with anything else. Nothing can be measured beside a test run on two cores."""

from __future__ import annotations

import time

from benchmarks.processes import machine_cpu_seconds

#: Cores that others may use while a run counts as undisturbed.
LIMIT_CORES = 0.25
_LOOK_SECONDS = 0.5


def wait_until_quiet(patience_seconds: float) -> bool:
    """Wait until the machine has been quiet for half a second; False if it was not in that time."""
    deadline = time.monotonic() + patience_seconds
    while True:
        before, own, at = machine_cpu_seconds(), time.process_time(), time.monotonic()
        time.sleep(_LOOK_SECONDS)
        used = machine_cpu_seconds() - before - (time.process_time() - own)
        if used / (time.monotonic() - at) <= LIMIT_CORES:
            return True
        if time.monotonic() >= deadline:
            return False
