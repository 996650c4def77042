"""Logs a worker's start, with how it is set, and its end, with why and what it has done."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from settings import Settings
from worker.broker.connection import public_url
from worker.observe import jobs, metrics, setting_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)


class Lifetime:
    """The start and the end of one worker in the log.

    Args:
        settings: the worker's settings. No secret of them is logged.
        name: the worker's name in Redis.
        version: of this program.
    """

    def __init__(self, settings: Settings, *, name: str, version: str) -> None:
        self._settings = settings
        self._name = name
        self._version = version
        self._began_at = time.monotonic()
        self._reasons: list[str] = []

    def started(self, *, node: str, queues: Sequence[str], concurrency: int, task_events: bool) -> None:
        """Log the start, and each variable that looks like a slip.

        Args:
            node: Celery's name for the worker.
            queues: the queues that jobs are taken from.
            concurrency: the jobs that it runs at once.
            task_events: Celery's events of each job are on.
        """
        settings = self._settings
        fields = {
            "version": self._version,
            "node": node,
            "worker": self._name,
            "queues": list(queues),
            "api": urlsplit(settings.API_URL).netloc,
            "redis": public_url(settings),
            "results": settings.RESULTS_CHANNEL,
            "dead": settings.DEAD_STREAM,
            "concurrency": concurrency,
            "rate_limit_per_second": settings.RATE_LIMIT_PER_SECOND,
            "lease_seconds": settings.LEASE_SECONDS,
            "max_attempts": settings.MAX_ATTEMPTS,
            "task_events": task_events,
            "dry_run": settings.DRY_RUN,
            "rules_dry_run": settings.RULES_DRY_RUN,
            "settings": changed(settings),
        }
        logger.info("worker_started", extra=fields)
        for odd in setting_names.misspelt():
            logger.warning("setting_unknown", extra={"setting": odd.name, "problem": odd.problem})
        for odd in setting_names.odd_values():
            logger.warning("setting_odd", extra={"setting": odd.name, "problem": odd.problem})

    def asked_to_stop(self, reason: str) -> None:
        """Note a signal, or whatever else ends the worker. Of several ones the line on the end names all.

        It may be called by a signal handler.
        """
        self._reasons.append(reason)

    def stopped(self, exit_status: int | None) -> None:
        """Log the end: its reason, and how the jobs ended that this worker has settled."""
        fields = {
            "reason": ", ".join(self._reasons) or "error",
            "exit_status": exit_status or 0,
            "seconds": round(time.monotonic() - self._began_at, 1),
            "finished": _finished(),
            "released": jobs.released_so_far(),
        }
        logger.info("worker_stopped", extra=fields)


def changed(settings: Settings) -> dict[str, Any]:
    """Return the settings that are not the default; of a secret only that it is set."""
    fields = Settings.model_fields
    values = {name: getattr(settings, name) for name, field in fields.items()}
    return {name: _shown(value) for name, value in values.items() if value != fields[name].default}


def _shown(value: SecretStr | Path | str | float | None) -> str | float | None:
    if isinstance(value, SecretStr):
        return "set"
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _finished() -> dict[str, int]:
    """Return how many jobs ended with each outcome that occurred."""
    samples = (sample for metric in metrics.FINISHED.collect() for sample in metric.samples)
    return {
        sample.labels["outcome"]: int(sample.value)
        for sample in samples
        if sample.name.endswith("_total") and sample.value
    }
