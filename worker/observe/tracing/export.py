"""Hands spans to an OTLP/HTTP receiver from a thread of its own, which no job waits for.

Spans wait in a queue of bounded length. What a receiver that is away, slow or unwilling costs is counted and told in
one log line, then in one a minute while it lasts, and in one when it is over.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

logger = logging.getLogger(__name__)

#: Seconds between two lines on one outage.
REPEAT_SECONDS: Final = 60.0
#: An outage is over when spans are taken again and none was lost for so many seconds.
QUIET_SECONDS: Final = 10.0
_QUEUE_FULL: Final = "the queue of spans is full: the receiver takes them too slowly"
_NO_REASON: Final = "the receiver cannot be reached, or gave no answer in time"
_MAX_REASON_CHARACTERS: Final = 400
_DEFAULT_QUEUE_SIZE: Final = 2048
#: Where the exporter tells why it failed. Its lines, one for each attempt, are replaced by ours.
_EXPORTER_LOG: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class LostSpans:
    """Counts the spans that were lost, and logs outages of the receiver; thread-safe.

    Args:
        now: returns the seconds of a monotonic clock.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._began_at: float | None = None
        self._logged_at = self._lost_at = 0.0
        self._lost = 0

    def lost(self, spans: int, reason: str) -> None:
        """Note that so many spans were lost."""
        now = self._now()
        with self._lock:
            self._lost_at = now
            self._lost += spans
            is_new = self._began_at is None
            if self._began_at is None:
                self._began_at = now
            is_logged = is_new or now - self._logged_at >= REPEAT_SECONDS
            if is_logged:
                self._logged_at = now
            facts = {"spans_lost": self._lost, "seconds": round(now - self._began_at, 1), "problem": reason}
        if is_new:
            logger.warning("traces_not_exported", extra=facts)
        elif is_logged:
            logger.warning("traces_still_not_exported", extra=facts)

    def exported(self) -> None:
        """Note that the receiver took spans."""
        now = self._now()
        with self._lock:
            if self._began_at is None or now - self._lost_at < QUIET_SECONDS:
                return
            facts = {"spans_lost": self._lost, "seconds": round(now - self._began_at, 1)}
            self._began_at, self._lost = None, 0
        logger.warning("traces_exported_again", extra=facts)  # a warning, as the beginning was one


class ToldExporter(SpanExporter):
    """Passes spans on to another exporter, and tells what became of them.

    Attributes:
        taken: spans that were taken from the queue.
        done: spans that were exported, or lost.
    """

    def __init__(self, exporter: SpanExporter, lost: LostSpans, reasons: Reasons) -> None:
        self.taken = self.done = 0
        self._exporter = exporter
        self._lost = lost
        self._reasons = reasons

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans; never raises."""
        self.taken += len(spans)
        self._reasons.last = _NO_REASON
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever an exporter does, the thread must live on
            result, self._reasons.last = SpanExportResult.FAILURE, type(error).__name__
        if result is SpanExportResult.SUCCESS:
            self._lost.exported()
        else:
            self._lost.lost(len(spans), self._reasons.last)
        self.done += len(spans)
        return result

    def shutdown(self) -> None:
        """Close the other exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the other exporter."""
        return self._exporter.force_flush(timeout_millis)


class BoundedQueue(BatchSpanProcessor):
    """OpenTelemetry's queue, which drops and counts a span when it is full.

    Args:
        exporter: takes the spans.
        lost: counts those that were dropped.
        size: spans that may wait.
    """

    def __init__(self, exporter: ToldExporter, lost: LostSpans, size: int) -> None:
        super().__init__(exporter, max_queue_size=size)
        self._taker = exporter
        self._lost = lost
        self._size = size
        self._put = 0

    @property
    def waiting(self) -> int:
        """Spans that wait to be exported."""
        return self._put - self._taker.taken

    @property
    def unsent(self) -> int:
        """Those, and the ones that are being exported."""
        return self._put - self._taker.done

    def on_end(self, span: ReadableSpan) -> None:
        """Put a span that has ended into the queue."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self.waiting >= self._size:
            self._lost.lost(1, _QUEUE_FULL)
            return
        self._put += 1
        super().on_end(span)


class Reasons(logging.Filter):
    """Takes the exporter's own log lines out of the log, and keeps the last one as the reason of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.last = _NO_REASON

    def listen(self) -> None:
        """Begin to."""
        logging.getLogger(_EXPORTER_LOG).addFilter(self)

    def leave(self) -> None:
        """Let the exporter's lines into the log again."""
        logging.getLogger(_EXPORTER_LOG).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the reason; the line itself is not logged."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        if record.levelno < logging.ERROR and arguments:  # it tries again because of this
            self.last = without_credentials(str(arguments[0]))
        elif len(arguments) > 1:  # it failed for good; what follows its retries has one argument, and no reason
            self.last = without_credentials(" ".join(str(each) for each in arguments[1:] if each is not None))
        return False


def without_credentials(text: str) -> str:
    """Return a text for the log: short, printable, and of a URL in it nothing before ``@`` or after ``?``."""
    words = (word.partition("?")[0].rpartition("@")[2] for word in text.split())
    return printable(" ".join(words))[:_MAX_REASON_CHARACTERS]


def queue_size() -> int:
    """Return how many spans may wait, as OpenTelemetry's variable says."""
    try:
        return max(1, int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or _DEFAULT_QUEUE_SIZE))
    except ValueError:
        return _DEFAULT_QUEUE_SIZE
