"""A job as Celery's remote control, signals and events see it while it is with us."""

from __future__ import annotations

from typing import Any

from celery.worker import request as stock


class Request(stock.Request):
    """A request whose acknowledgement is its result event.

    Publishing the event is what ends a job, and that is done by the time Celery hears of it; so there is nothing to
    acknowledge, unless Celery lets the job go before the pool had it.
    """

    _apply_result: Any  # set by Celery once the pool has the job

    def acknowledge(self) -> None:
        """Note the end; a job that the pool never had was dropped (revoked), and its message is told."""
        if self._apply_result is None:
            super().acknowledge()
        self.acknowledged = True
