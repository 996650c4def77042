"""Formats everything that a worker process prints: log lines, and all else on standard output and error.

With ``LOG_FORMAT=json`` each line is one JSON object, whatever prints it: Celery's banner and its "Warm shutdown",
Python's warnings, the message of a failed start. Only what the Python interpreter writes as it dies (``faulthandler``,
a fatal error) cannot be formatted.
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
from worker.observe.log_record import Record

_STREAMS = {"stdout": logging.INFO, "stderr": logging.ERROR}


class JsonStream(io.TextIOBase):
    """A text stream on which each text that ends in a line break becomes one JSON object on one line.

    Args:
        stream: where the lines are written.
        name: the logger in the lines.
        level: the level in the lines.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: TextIO, name: str, level: int) -> None:
        self.stream = stream
        self._name = name
        self._level = level
        self._unfinished = threading.local()

    def write(self, text: str) -> int:
        """Write a text, or buffer it until its line ends."""
        if not isinstance(text, str):  # as any text stream does; click tests the kind of stream by this
            raise TypeError(f"must be str, not {type(text).__name__}")
        whole = getattr(self._unfinished, "text", "") + text
        is_over = whole.endswith("\n") or len(whole) > logs.MAX_LINE_BYTES
        self._unfinished.text = "" if is_over else whole
        if is_over:
            self._write_line(whole)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        whole, self._unfinished.text = getattr(self._unfinished, "text", ""), ""
        self._write_line(whole)
        self.stream.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream beneath."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Return True if the stream beneath is a terminal."""
        return self.stream.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True

    def _write_line(self, text: str) -> None:
        if text.strip():
            self.stream.write(_line(text.strip("\n"), self._name, self._level) + "\n")
            self.stream.flush()


def _line(event: str, logger: str, level: int, **fields: Any) -> str:
    record = Record(logger, level, "", 0, event, (), None)
    vars(record).update(fields)
    return logs.JsonLines().format(record)


def take_over(log_format: Literal["json", "console"]) -> None:
    """Format everything that this process prints from here on.

    Python's warnings and uncaught errors, in any thread, become log lines too.
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
    """Do the same as :func:`take_over` before the settings are read: in JSON unless LOG_FORMAT is console."""
    take_over("console" if os.environ.get("LOG_FORMAT") == "console" else "json")


def log_stream() -> TextIO:
    """Return the stream of log lines: the real standard error, beneath a :class:`JsonStream`."""
    stream: TextIO = getattr(sys.stderr, "stream", sys.stderr)
    return stream


def say(event: str, logger: str, **fields: Any) -> None:
    """Write a JSON line as :func:`write_now` does."""
    write_now(_line(event, logger, logging.INFO, **fields) + "\n")


def write_now(text: str) -> None:
    """Write to standard error at once and without any lock, as a signal handler has to."""
    data = text.encode("utf-8", "backslashreplace")
    with suppress(OSError):  # the reader is gone
        while data:
            data = data[os.write(sys.stderr.fileno(), data) :]
