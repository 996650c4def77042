"""Log lines: a stable event name with fields, as JSON objects or coloured for people.

No message body and no secret is logged.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

import structlog
from pydantic_core import PydanticSerializationError, to_json

#: What every record has; the rest are the line's own fields.
_USUAL = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


class Record(logging.LogRecord):
    """A record without what no line shows: the place in the source, the thread, the process.

    The standard library's own takes a file's name apart for each line.
    """

    def __init__(  # noqa: PLR0917 - logging's signature
        self,
        name: str,
        level: int,
        pathname: str,  # noqa: ARG002 - as above
        lineno: int,  # noqa: ARG002
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,  # noqa: ARG002
        sinfo: str | None = None,
        **_: Any,
    ) -> None:
        self.name = name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.msg = msg
        self.args = args[0] if len(args) == 1 and isinstance(args[0], dict) and args[0] else args
        self.exc_info = exc_info
        self.exc_text = None
        self.stack_info = sinfo
        self.created = time.time()


class JsonLines(logging.Formatter):
    """A record as one JSON object. It runs once for each job, and structlog's renderer takes three times as long."""

    def format(self, record: logging.LogRecord) -> str:
        """Format; whatever the record holds, there is a line."""
        line: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _USUAL}
        line["event"] = record.getMessage()
        line["level"] = record.levelname.lower()
        line["logger"] = record.name
        line["timestamp"] = self.formatTime(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return to_json(line, fallback=repr, inf_nan_mode="strings").decode()
        except (PydanticSerializationError, ValueError, RecursionError):  # half a character in a name, for one
            return json.dumps(line, default=repr)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        """RFC 3339 in UTC, with microseconds."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.created % 1 * 1_000_000):06d}Z"


def _for_people() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
    )


def configure(log_format: Literal["json", "console"], level: int) -> None:
    """Send every log line of the process, Celery's and kombu's too, to standard error in one format."""
    logging._srcfile = None  # noqa: SLF001 - the documented way: https://docs.python.org/3/howto/logging.html#optimization
    logging.setLogRecordFactory(Record)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else _for_people())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
