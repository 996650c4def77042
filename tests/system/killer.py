"""A plugin for a worker process (``--include``): dies at once, as in an OOM kill, when a job of a certain id begins."""

from __future__ import annotations

import os
from typing import Any

from celery import signals


def die_of(task_id: str, **_: Any) -> None:
    if task_id.startswith("killer"):
        os._exit(137)


signals.task_prerun.connect(die_of, weak=False)
