"""Any order of moves by three workers leaves every job in exactly one place, and ends it with exactly one event.

`make test` runs the same steps every time, so a failure is reproduced by running it again. For other, and more, steps::

    MODEL_RUNS=20000 .venv/bin/python -m pytest tests/model

chance decides then, and a failure prints the ``@reproduce_failure`` line that brings it back.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import QueueMachine
from tests.model.steps import Server

RUNS = int(os.environ.get("MODEL_RUNS", "0"))
STEPS = 40
PROFILE = settings(
    max_examples=RUNS or 80,
    stateful_step_count=STEPS,
    derandomize=not RUNS,
    print_blob=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def run_on(redis_url: str) -> None:
    """Let three workers do and not do whatever comes to hypothesis, on a server."""
    with Server(redis_url) as server:

        class OnServer(QueueMachine):
            def __init__(self) -> None:
                super().__init__(server)

        run_state_machine_as_test(OnServer, settings=PROFILE)
