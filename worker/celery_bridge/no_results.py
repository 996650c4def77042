"""Celery's result backend for a worker that keeps no results: it says where a job's result is instead.

Without it ``celery result`` and ``AsyncResult`` would end in a traceback that asks for a backend to be configured.
"""

from __future__ import annotations

from typing import Any, NoReturn

from celery import states
from celery.backends.base import DisabledBackend
from click import ClickException


class ResultsAreEventsError(ClickException):
    """A result was asked for. Celery's commands show this sentence."""

    def __init__(self) -> None:
        super().__init__(
            "lock-worker keeps no Celery results: each job ends in one event in the stream RESULTS_CHANNEL. "
            "Read it with lock-worker watch --from-start or with a consumer of your own."
        )


class NoResults(DisabledBackend):
    """A backend that stores nothing and has no result of any job."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ResultsAreEventsError

    get_task_meta = get_status = get_result = get_traceback = get_task_meta_for = wait_for = get_many = _refuse

    def get_state(self, task_id: str) -> str:  # noqa: ARG002 - Celery's signature
        """Return PENDING, which is Celery's word for "not known": a revoke asks before it notes itself."""
        return states.PENDING
