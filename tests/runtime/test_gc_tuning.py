"""Python's collector of cycles in a worker: it does not look while the worker is loaded, and rarely from then on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LOOK = """
import gc, json, sys
default = gc.get_threshold()[0]
def looks():
    return sum(generation["collections"] for generation in gc.get_stats())
before = looks()
import worker.celery
looks_while_loading = looks() - before
afterwards = gc.get_threshold()[0]
from worker.runtime import gc_tuning
gc_tuning.freeze_loaded_objects()
order = list(sys.modules)
print(json.dumps({
    "is_first": order.index("worker.runtime.gc_tuning") < order.index("celery"),
    "looks_while_loading": looks_while_loading,
    "looks_more_rarely": afterwards == gc.get_threshold()[0] > default,
    "left_alone": gc.get_freeze_count(),
    "looked_at": len(gc.get_objects()),
    "is_on": gc.isenabled(),
}))
"""


def test_a_worker_does_not_look_while_it_loads_and_then_rarely_and_leaves_alone_what_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env={"API_TOKEN": "t"}, capture_output=True, text=True, check=True
    )

    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["is_first"], found["looks_more_rarely"], found["is_on"]) == (True, True, True)
    assert found["looks_while_loading"] < 10  # a few before this module is loaded
    assert found["left_alone"] > 100 * found["looked_at"]
