"""Decodes a queue message into a job or a rejection, whatever its bytes are."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from tasks.message import ParsedJob, Rejection
from tasks.outcome import Problem, ProblemType
from tasks.parse import parse
from tasks.shadow import NO_SHADOW
from worker.message import celery_protocol

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.shadow import Shadow

logger = logging.getLogger(__name__)

#: How long the result of reading a message ahead may be used.
_KEPT = timedelta(seconds=1)


class Decode(Protocol):
    """Decodes a queue message; never raises.

    Args:
        raw: its bytes, or the beginning of a message that is too large.
        size: the size of the whole message in bytes.
        now: the present time, on the server's clock.
    """

    def __call__(self, raw: bytes, *, size: int, now: datetime) -> ParsedJob:
        """Return the job, or the rejection of a message that is none."""


def decoder(task_name: str, shadow: Shadow = NO_SHADOW) -> Decode:
    """Return a decoder of messages for one task. ``shadow`` says which jobs are dry runs by setting."""

    def decode(raw: bytes, *, size: int, now: datetime) -> ParsedJob:
        try:
            return parse(celery_protocol.parse(raw, now=now, task_name=task_name, true_size=size), shadow)
        except Exception as error:  # noqa: BLE001 - both never raise; if that is ever wrong, the message must still get its event
            logger.error("intake_error", extra={"error": type(error).__name__, "bytes": size})  # noqa: TRY400 - a traceback could show the body
            problem = Problem(ProblemType.INTERNAL, "The worker failed to read the message; see its log.")
            return Rejection(celery_protocol.derived_id(raw), None, None, problem, None, None)

    return decode


class ReadAhead:
    """Decodes messages, and keeps the result for one that is about to be taken, so that it is not decoded twice.

    It keeps the result only briefly: it depends on the time (an expiry, for example), and a pause may delay the take.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._kept: tuple[bytes, datetime, ParsedJob] | None = None

    def look(self, raw: bytes, *, now: datetime) -> ParsedJob:
        """Decode a message before it is taken, and keep the result instead of an earlier one."""
        parsed = self._decode(raw, size=len(raw), now=now)
        self._kept = raw, now, parsed
        return parsed

    def __call__(self, raw: bytes, *, size: int, now: datetime) -> ParsedJob:
        """Decode a message that was taken."""
        kept, self._kept = self._kept, None  # used once, as equal messages without an id are different jobs
        if kept is not None and kept[0] == raw and now - kept[1] < _KEPT:
            return kept[2]
        return self._decode(raw, size=size, now=now)
