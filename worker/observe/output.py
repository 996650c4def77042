"""Everything that a worker process prints: log lines, and what is written to standard output and error past them.

With ``LOG_FORMAT=json`` each line is one JSON object, whoever writes it: Celery's banner and its "Warm shutdown",
Python's warnings, the sentence of a start that fails. What the Python interpreter itself writes as it dies
(``faulthandler``, a fatal error) is beyond reach.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Any, Literal, TextIO

from worker.observe import logs, uncaught

_STREAMS = {"stdout": logging.INFO, "stderr": logging.ERROR}


class JsonStream(io.TextIOBase):
    """A text stream on which each text that ends in a line break becomes one JSON object on one line.

    Args:
        stream: what the lines are written to.
        name: the name of the logger that they name.
        level: the level that they name.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: TextIO, name: str, level: int) -> None:
        self.stream = stream
        self._name = name
        self._level = level
        self._unfinished = threading.local()

    def write(self, text: str) -> int:
        """Write a text, or keep it until its line ends."""
        if not isinstance(text, str):  # as any text stream; click finds out by this what it has
            raise TypeError(f"must be str, not {type(text).__name__}")
        whole = getattr(self._unfinished, "text", "") + text
        is_over = whole.endswith("\n") or len(whole) > logs.MAX_LINE_BYTES
        self._unfinished.text = "" if is_over else whole
        if is_over:
            self._write_line(whole)
        return len(text)

    def flush(self) -> None:
        """Write what is kept."""
        whole, self._unfinished.text = getattr(self._unfinished, "text", ""), ""
        self._write_line(whole)
        self.stream.flush()

    def fileno(self) -> int:
        """The descriptor beneath."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self.stream.isatty()

    def writable(self) -> bool:
        """Yes."""
        return True

    def _write_line(self, text: str) -> None:
        if text.strip():
            self.stream.write(_line(text.strip("\n"), self._name, self._level) + "\n")
            self.stream.flush()


def _line(event: str, logger: str, level: int, **fields: Any) -> str:
    record = logs.Record(logger, level, "", 0, event, (), None)
    vars(record).update(fields)
    return logs.JsonLines().format(record)


def take_over(log_format: Literal["json", "console"]) -> None:
    """Make whatever this process writes from here on what its format promises.

    Warnings of Python's become log lines, and so do errors that nobody catches, in whatever thread.
    """
    if log_format == "json":
        for name, level in _STREAMS.items():
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
                for place in (name, f"__{name}__"):
                    setattr(sys, place, JsonStream(stream, name, level))
    logs.configure(log_format, logging.WARNING, log_stream())
    logging.captureWarnings(capture=True)
    uncaught.install()


def take_over_before_settings() -> None:
    """Do as :func:`take_over`, where it is not known yet whether the settings are right: in JSON, if in doubt."""
    take_over("console" if os.environ.get("LOG_FORMAT") == "console" else "json")


def log_stream() -> TextIO:
    """Where log lines go: standard error, and past what makes a line of each text."""
    stream: TextIO = getattr(sys.stderr, "stream", sys.stderr)
    return stream


def say(event: str, logger: str, **fields: Any) -> None:
    """Write a JSON line as :func:`write_now` does."""
    write_now(_line(event, logger, logging.INFO, **fields) + "\n")


def write_now(text: str) -> None:
    """Write to standard error at once and past all locks, as a signal handler has to."""
    data = text.encode("utf-8", "backslashreplace")
    with suppress(OSError):  # nobody reads it
        while data:
            data = data[os.write(sys.stderr.fileno(), data) :]
