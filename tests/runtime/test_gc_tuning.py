"""Python's collector of cycles in a worker: it is told to look rarely before the rest is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LOOK = """
import gc, json, sys
default = gc.get_threshold()[0]
import worker.celery
from worker.runtime import gc_tuning
gc_tuning.freeze_loaded_objects()
order = list(sys.modules)
print(json.dumps({
    "is_first": order.index("worker.runtime.gc_tuning") < order.index("celery"),
    "looks_more_rarely": gc.get_threshold()[0] > default,
    "left_alone": gc.get_freeze_count(),
    "looked_at": len(gc.get_objects()),
    "is_on": gc.isenabled(),
}))
"""


def test_a_worker_looks_rarely_from_the_first_import_on_and_leaves_alone_what_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env={"API_TOKEN": "t"}, capture_output=True, text=True, check=True
    )

    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["is_first"], found["looks_more_rarely"], found["is_on"]) == (True, True, True)
    assert found["left_alone"] > 100 * found["looked_at"]
