"""A plugin for a worker under test (``--include``): prints the name that its lease tokens begin with.

So the harness knows which jobs were in flight in the process that it is about to kill. Only a worker can import it.
"""

from __future__ import annotations

import os

from tests.chaos.fleet import NAME_TAG
from worker.celery import app

# Past Python's standard output, on which the worker makes a JSON object of each line.
os.write(1, f"{NAME_TAG}{app.runtime.name}\n".encode())
