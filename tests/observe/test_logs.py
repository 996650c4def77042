"""Log lines: whatever is logged, there is one line, it has a bound, and it shows nothing that it must not."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from typing import Any, Literal, NoReturn

import pytest

from worker.observe.log_record import Record
from worker.observe.logs import MAX_LINE_BYTES, ConsoleLines, formatter

Format = Literal["json", "console"]
FORMATS: tuple[Format, ...] = ("json", "console")
#: One of each kind that can harm a terminal or a reader of logs: Cc, Cf, Zl, Zp, and half a surrogate pair.
HARMFUL = {
    "escape": "\x1b[2J", "carriage return": "a\rb", "line break": "a\nb", "delete": "\x7f", "C1": "\x9b2J",
    "next line": "a\x85b", "right-to-left override": "a\u202eb", "isolate": "a\u2066b", "zero width": "a\u200bb",
    "byte order mark": "\ufeffa", "line separator": "a\u2028b", "paragraph separator": "a\u2029b",
    "tag": "a\U000e0041b", "half a pair": "a\ud83db", "soft hyphen": "a\xadb", "NUL": "a\x00b",
}  # fmt: skip


def written(
    message: object,
    *arguments: object,
    raised: BaseException | None = None,
    log_format: Format = "json",
    logger: str = "worker.runtime.executor",
    **fields: Any,
) -> str:
    """What a handler writes of one record."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter(log_format))
    exc_info = (type(raised), raised, raised.__traceback__) if raised is not None else None
    record = Record(logger, logging.WARNING, "", 0, message, arguments, exc_info)
    vars(record).update(fields)
    handler.handle(record)
    return out.getvalue()


def line_of(message: object, *arguments: object, raised: BaseException | None = None, **fields: Any) -> dict[str, Any]:
    """A line as a reader of JSON has it."""
    (line, nothing) = written(message, *arguments, raised=raised, **fields).split("\n")
    assert not nothing
    found: dict[str, Any] = json.loads(line)
    return found


def caught(function: Any, *arguments: object) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001 - it is looked at
        return error
    raise AssertionError("it did not fail")


def test_a_line_has_the_event_its_fields_the_level_the_logger_and_the_time() -> None:
    line = line_of("job_finished", job="j-1", attempts=2, error=None)

    time = line.pop("timestamp")
    assert line == {
        "event": "job_finished", "job": "j-1", "attempts": 2, "error": None,
        "level": "warning", "logger": "worker.runtime.executor",
    }  # fmt: skip
    assert time.endswith("Z")
    assert len(time) == len("2026-11-22T15:04:05.123456Z")


def test_a_line_for_people_has_the_same_and_quotes_what_is_not_one_word() -> None:
    line = written("job_finished", log_format="console", job="j-1", attempts=2, error=None, why="not found", ids=["a"])

    time, rest = line.removesuffix("\n").split(" ", 1)
    assert rest == (
        "[warning ] job_finished [worker.runtime.executor] attempts=2 error=None ids=['a'] job=j-1 why='not found'"
    )
    assert len(time) == len("2026-11-22T15:04:05.123456Z")


def test_a_terminal_gets_the_same_line_in_colours() -> None:
    record = Record("worker", logging.WARNING, "", 0, "job_finished", (), None)
    vars(record).update(job="j-1")

    plain, coloured = (ConsoleLines(is_coloured=is_coloured).format(record) for is_coloured in (False, True))

    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]+m", "", coloured) == plain


def test_arguments_are_put_into_the_message() -> None:
    assert line_of("connected to %s", "redis")["event"] == "connected to redis"
    assert line_of("task %(name)s", {"name": "lock"})["event"] == "task lock"


@pytest.mark.parametrize("log_format", FORMATS)
def test_arguments_that_do_not_fit_leave_the_message_without_them(log_format: Format) -> None:
    line = written("so many: %d", "private words", log_format=log_format)

    assert "so many: %d" in line
    assert "private words" not in line


@pytest.mark.parametrize("log_format", FORMATS)
def test_an_error_brings_its_traceback(log_format: Format) -> None:
    line = written("job_error", raised=ValueError("no"), log_format=log_format)

    assert "ValueError: no" in line


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def endless() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [
        "half \ud800 a pair", b"\xff", object, {1, 2}, 10**400, 10**5000, "two\nlines", float("inf"), float("nan"),
        Unspeakable(), endless(), ["half \ud800 a pair", float("nan")], {"a": {"b": b"\xff"}}, {1: 2, None: 3},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("log_format", FORMATS)
def test_any_value_gives_a_line(value: object, log_format: Format) -> None:
    line = written("the_event", value=value, log_format=log_format)

    assert line.count("\n") == 1
    assert "the_event" in line
    if log_format == "json":
        assert json.loads(line, parse_constant=pytest.fail, parse_int=str)["event"] == "the_event"


@pytest.mark.parametrize("harmful", HARMFUL.values(), ids=HARMFUL.keys())
@pytest.mark.parametrize("log_format", FORMATS)
def test_what_comes_from_outside_is_escaped_wherever_it_stands(harmful: str, log_format: Format) -> None:
    line = written(
        f"event {harmful}",
        raised=ValueError(harmful),
        log_format=log_format,
        job=harmful,
        several=[harmful, {harmful: harmful}],
    )

    if log_format == "json":
        assert line.removesuffix("\n").isprintable()
        assert json.loads(line)["event"].encode("utf-8")
    else:
        first, *rest = line.removesuffix("\n").split("\n")
        assert first.isprintable()
        assert all(one.startswith("  ") and one.isprintable() for one in rest), "no line of log can be forged"


def test_what_is_escaped_reads_as_it_was() -> None:
    assert line_of("event", job="a\u202eb\u2028c\x1b")["job"] == "a\u202eb\u2028c\x1b"


HALVES = {"the first": "\ud83d", "the second": "\ude00", "both": "\ude00\ud83d"}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
def test_half_a_pair_is_reported_as_text_which_every_reader_of_json_takes(half: str) -> None:
    line = written("event", job=half)

    assert json.loads(line)["job"].isascii()
    assert json.loads(line)["job"].startswith("\\ud")


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\x1b" * 100_000, "é" * 60_000, "\ud800" * 60_000, "\n" * 100_000])
@pytest.mark.parametrize("log_format", FORMATS)
def test_a_line_has_a_bound_and_says_what_is_left_out(text: str, log_format: Format) -> None:
    line = written("event", job="j-1", text=text, several=[text, text], log_format=log_format)

    assert len(line.encode("utf-8")) <= 3 * MAX_LINE_BYTES
    if log_format == "json":
        assert len(line.encode("utf-8")) <= MAX_LINE_BYTES + 1
    assert "characters left out" in line
    assert "j-1" in line


def deep(depth: int) -> NoReturn:
    if depth == 0:
        raise ValueError("the reason")
    deep(depth - 1)


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_long_traceback_keeps_the_error_that_it_ends_with(log_format: Format) -> None:
    def fail() -> NoReturn:
        raise ValueError("x" * 100_000) from caught(deep, 200)

    line = written("job_error", raised=caught(fail), log_format=log_format)

    assert len(line) < 2 * MAX_LINE_BYTES
    assert "xxx" in line
    assert line.count("in deep") >= 1


def fails_with(*words: str) -> NoReturn:
    text = "".join(words)
    several = {"reason": text, "names": [text]}
    raise ZeroDivisionError(len(several))


@pytest.mark.parametrize(
    "logger", ["root", "celery", "kombu.asynchronous", "asyncio", "worker.runtime.executor", "py.warnings"]
)
@pytest.mark.parametrize("log_format", FORMATS)
def test_no_traceback_shows_the_value_of_a_variable(log_format: Format, logger: str) -> None:
    line = written("job_error", raised=caught(fails_with, "private ", "words"), log_format=log_format, logger=logger)

    assert "ZeroDivisionError" in line
    assert "fails_with" in line
    assert "private words" not in line


def test_a_stream_that_nobody_reads_any_more_stops_no_log_call(capsys: pytest.CaptureFixture[str]) -> None:
    from worker.observe.logs import _Handler  # noqa: PLC0415

    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    handler = _Handler(Gone())
    handler.handle(Record("worker", logging.WARNING, "", 0, "event", ("private words",), None))

    assert capsys.readouterr() == ("", "")
    assert sys.stderr is not None
