"""Formats log lines: a stable event name with fields, as JSON objects or coloured for people.

No line has a message body or a secret, and no traceback shows the values of variables. Text from outside is escaped
(:mod:`worker.observe.printable`), and every line has a bounded length.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
import traceback
from typing import Any, Final, Literal, TextIO

from pydantic_core import to_json

from worker.observe.log_limits import log_limits
from worker.observe.log_record import Record
from worker.observe.printable import printable

#: Bytes of a line. The runtimes of containers cut longer ones in two, and then neither half is JSON.
MAX_LINE_BYTES = 16_000
#: If a line is too long, each text in it is cut to so many characters: the first of these numbers that is enough.
_MAX_TEXT = (4000, 500, 50)
_HALF_PAIRS = re.compile("[\ud800-\udfff]")
#: Text that needs no quotes in a line for people.
_WORD = re.compile(r"[^\s=\"']+")
#: Integers with more bits are written as text, because few JSON parsers keep all their digits.
_INTEGER_BITS = 64

#: The attributes of every record; all others are the line's own fields.
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. It never raises, whatever the record holds."""
        line = _own_fields(record)
        line["event"] = _message(record)
        line["level"] = record.levelname.lower()
        line["logger"] = record.name
        line["timestamp"] = _time(record)
        if record.exc_info:
            line["exception"] = _traceback(record.exc_info)
        return _one_line(line)


class ConsoleLines(logging.Formatter):
    """Formats a record for people: time, level, event, logger and fields in one line, then the traceback, indented.

    Args:
        is_coloured: use a terminal's colours.
    """

    def __init__(self, *, is_coloured: bool) -> None:
        super().__init__()
        self._paint = _painted if is_coloured else _plainly

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. It never raises, whatever the record holds."""
        paint = self._paint
        level = record.levelname.lower()
        parts = [
            paint(_time(record), _DIM),
            f"[{paint(f'{level:<8}', _LEVEL_COLOURS.get(level, _BOLD))}]",
            paint(printable(_cut(_message(record), _MAX_TEXT[0])), _BOLD),
            f"[{paint(printable(record.name), _BLUE)}]",
        ]
        for name, value in sorted(_own_fields(record).items()):
            parts.append(f"{paint(printable(name), _CYAN)}={paint(_shown(value), _MAGENTA)}")
        line = " ".join(parts)
        if record.exc_info:
            # Indented, so that a line break in an error's text cannot begin a line of log.
            lines = _cut(_traceback(record.exc_info), MAX_LINE_BYTES).split("\n")
            line += "".join(f"\n  {printable(one)}" for one in lines)
        return line


_BOLD, _DIM, _RED, _YELLOW, _BLUE, _MAGENTA, _CYAN = ("1", "2", "31;1", "33;1", "34", "35", "36")
_LEVEL_COLOURS: Final = {"debug": _DIM, "info": "32;1", "warning": _YELLOW, "error": _RED, "critical": _RED}


def _painted(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"


def _plainly(text: str, _: str) -> str:
    return text


def _shown(value: object) -> str:
    """Return a field's value for people: a text of several words in quotes, all that is not printable escaped."""
    if not isinstance(value, str):
        return printable(str(_plain(value, _MAX_TEXT[0])))
    text = _cut(value, _MAX_TEXT[0])
    return text if _WORD.fullmatch(text) and text.isprintable() else repr(text)


def _own_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that the record has beside the standard ones."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    """Return the record's time as RFC 3339 in UTC, with microseconds."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.created % 1 * 1_000_000):06d}Z"


def _one_line(fields: dict[str, Any]) -> str:
    try:
        data = to_json(fields, fallback=repr, inf_nan_mode="strings")
        text = data.decode()
    except Exception:  # noqa: BLE001 - such as half a surrogate pair in a name, or an object whose repr fails
        text = _plain_json(fields)
        data = text.encode()
    if len(data) <= MAX_LINE_BYTES and text.isprintable():
        return text
    text = printable(text)
    for max_text in _MAX_TEXT:
        if len(text.encode()) <= MAX_LINE_BYTES:
            break
        text = printable(_plain_json(fields, max_text))
    return text


def _plain_json(fields: dict[str, Any], max_text: int | None = None) -> str:
    """Return JSON, with every value that is no text or number as text; each text is cut to ``max_text`` characters."""
    text = json.dumps({name: _plain(value, max_text) for name, value in fields.items()}, ensure_ascii=False)
    # Some readers of JSON refuse half a surrogate pair, escaped or not. They accept the escape as plain text.
    return _HALF_PAIRS.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text)


def _plain(value: object, max_text: int | None) -> str | float | None:
    if value is None or (isinstance(value, int) and value.bit_length() <= _INTEGER_BITS):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = value if isinstance(value, str) else _described(value)
    return text if max_text is None else _cut(text, max_text)


def _described(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - a repr may do anything
        return f"<{type(value).__name__}>"


def _cut(text: str, max_text: int) -> str:
    """Cut a text to ``max_text`` characters: its beginning and its end, where a traceback names the error."""
    if len(text) <= max_text:
        return text
    return f"{text[: max_text // 2]} [{len(text) - max_text} characters left out] {text[-(max_text // 2) :]}"


def _traceback(exc_info: Any) -> str:
    """Return a traceback without the values of variables, which may be secrets, messages or names."""
    try:
        return "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    except Exception as error:  # noqa: BLE001 - as in getMessage
        return f"{getattr(exc_info[0], '__name__', 'an error')} (its traceback cannot be shown: {type(error).__name__})"


def _message(record: logging.LogRecord) -> str:
    """Return the message; without its arguments if they do not fit."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - an argument's repr may do anything
        return _described(record.msg)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines. If that fails, there is no other place to report it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        """Do nothing: logging's default would print the arguments of the record."""


def formatter(log_format: Literal["json", "console"]) -> logging.Formatter:
    """Return the formatter of log lines."""
    return JsonLines() if log_format == "json" else ConsoleLines(is_coloured=sys.stderr.isatty())


def configure(log_format: Literal["json", "console"], level: int, stream: TextIO) -> None:
    """Send every log line of the process, including Celery's and kombu's, to one stream in one format.

    What repeats itself is limited (:mod:`worker.observe.log_limits`).
    """
    logging._srcfile = None  # noqa: SLF001 - the documented way: https://docs.python.org/3/howto/logging.html#optimization
    logging.setLogRecordFactory(Record)
    handler = _Handler(stream)
    handler.setFormatter(formatter(log_format))
    handler.addFilter(log_limits)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
