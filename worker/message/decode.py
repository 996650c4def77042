"""From a queue message's bytes to a job or a refusal: total, whatever the bytes are."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from tasks import job
from tasks.message import ParsedJob, Rejection
from tasks.outcome import Problem, ProblemType
from worker.message import celery_protocol

if TYPE_CHECKING:
    from datetime import datetime

logger = logging.getLogger(__name__)

#: How long a message counts as read.
_KEPT = timedelta(seconds=1)


class Decode(Protocol):
    """Reads a queue message; never raises.

    Args:
        raw: its bytes, or the beginning of a message that is too large.
        size: its own size in bytes.
        now: the moment, on the server's clock.
    """

    def __call__(self, raw: bytes, *, size: int, now: datetime) -> ParsedJob:
        """Read it."""


def decoder(task_name: str) -> Decode:
    """A reader of messages for one task."""

    def read(raw: bytes, *, size: int, now: datetime) -> ParsedJob:
        try:
            return job.parse(celery_protocol.parse(raw, now=now, task_name=task_name, true_size=size))
        except Exception as error:  # noqa: BLE001 - both are total; should that ever be wrong, the message still gets its event
            logger.error("intake_error", extra={"error": type(error).__name__, "bytes": size})  # noqa: TRY400 - a traceback could show the body
            problem = Problem(ProblemType.INTERNAL, "The worker failed to read the message; its log tells more.")
            return Rejection(celery_protocol.derived_id(raw), None, None, problem, None, None)

    return read


class ReadAhead:
    """Reads messages, and keeps what it read of one that is about to be taken, so that it is not read twice.

    Not for long: what a message is, an expired one for example, depends on the moment, and the take may bring it only
    after a pause.
    """

    def __init__(self, read: Decode) -> None:
        self._read = read
        self._kept: tuple[bytes, datetime, ParsedJob] | None = None

    def look(self, raw: bytes, *, now: datetime) -> ParsedJob:
        """Read a message before it is taken; of several, the last one is kept."""
        intake = self._read(raw, size=len(raw), now=now)
        self._kept = raw, now, intake
        return intake

    def __call__(self, raw: bytes, *, size: int, now: datetime) -> ParsedJob:
        """Read a message that was taken."""
        kept, self._kept = self._kept, None  # once: a message without an id is a new job each time
        if kept is not None and kept[0] == raw and now - kept[1] < _KEPT:
            return kept[2]
        return self._read(raw, size=size, now=now)
