"""Reads the jobs for ``enqueue``: conversation ids, or lines with an id or a JSON object each.

An invalid job is reported with its place and the fix, in the words of the rules that the worker itself applies. An
input can be read twice, so that all of it is checked before any job is sent.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import typer

from tasks.job import MAX_LEVELS
from tasks.message import Message, Rejection
from tasks.parse import parse
from tasks.strict_json import NotStrictError, loads
from worker.cli.exit import USAGE_ERROR, fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_BLANKS = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: An object, a list, a string, a literal such as null, or a number that is no integer.
_LOOKS_LIKE_JSON = re.compile(rb'[{["]|(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+))\Z')
_HOW_TO_WRITE_IT = (
    "Each line is one job: a conversation id as it is or in double quotes, or a JSON object with the fields of a job."
)
_NO_OPTIONS: Mapping[str, Any] = {
    "not_before": None, "expires_at": None, "traceparent": None, "replay_of": None, "ignored": (),
}  # fmt: skip


class BadJobError(ValueError):
    """The worker would reject the job; the message names the field and the fix."""


Found: TypeAlias = "tuple[str, Mapping[str, Any] | BadJobError]"
"""The place of a job in the input, and its fields, or what is wrong with it."""
Read: TypeAlias = "Callable[[], Iterator[Found]]"


@contextmanager
def of_arguments(ids: Sequence[str], common: Mapping[str, Any]) -> Iterator[Read]:
    """Read jobs for these conversations; ``common`` are the fields that every job has."""

    def read() -> Iterator[Found]:
        for number, conversation_id in enumerate(ids, start=1):
            if _is_json(conversation_id):
                found: Mapping[str, Any] | BadJobError = BadJobError(
                    "is JSON. Write the conversation id as it is, or JSON in the lines of --file."
                )
            else:
                found = _checked({**common, "conversation_id": conversation_id})
            yield f"argument {number}", found

    yield read


@contextmanager
def of_file(name: str, common: Mapping[str, Any]) -> Iterator[Read]:
    """Read jobs from the lines of a file, or of standard input (``-``), which is read to its end first.

    ``common`` are the fields that a job has unless its line says otherwise. Blank lines are skipped.
    """
    with _seekable(name) as lines:

        def read() -> Iterator[Found]:
            try:
                lines.seek(0)
                yield from _jobs(lines, common)
            except OSError as error:
                fail(f"--file {name}: {error.strerror}", USAGE_ERROR)

        yield read


@contextmanager
def _seekable(name: str) -> Iterator[BinaryIO]:
    try:
        opened = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        fail(f"--file {name}: {error.strerror}", USAGE_ERROR)
    if opened.isatty():
        typer.echo("lock-worker: reading jobs from this terminal, one a line, until Ctrl-D", err=True)
    with opened:
        if opened.seekable():
            yield opened
        else:
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(opened, copy)
                yield copy


def _jobs(lines: Iterable[bytes], common: Mapping[str, Any]) -> Iterator[Found]:
    for number, line in enumerate(lines, start=1):
        text = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).strip(_BLANKS)
        if text:
            try:
                found = _checked({**common, **_fields(text)})
            except BadJobError as bad:
                found = bad
            yield f"line {number}", found


def _fields(text: bytes) -> Mapping[str, Any]:
    """Return the fields of a line: those of a JSON object, or an id, written as it is or as a JSON string.

    Other JSON is no id: ``null`` or ``["c-1"]`` does not mean a conversation of that name. An integer is an id, as
    it is in a message.
    """
    if not _LOOKS_LIKE_JSON.match(text):
        try:
            return {"conversation_id": text.decode()}
        except UnicodeDecodeError as error:
            raise BadJobError(f"is not UTF-8 (byte {error.start + 1}).") from None
    try:
        value = loads(text, max_levels=MAX_LEVELS + 1)
    except NotStrictError as reason:
        raise BadJobError(f"{reason}." if text.startswith(b"{") else f"{reason}. {_HOW_TO_WRITE_IT}") from None
    if isinstance(value, str):
        return {"conversation_id": value}
    if not isinstance(value, dict):
        raise BadJobError(f"is JSON, but no object and no string. {_HOW_TO_WRITE_IT}")
    return value


def _is_json(argument: str) -> bool:
    """Return True if an id on the command line is JSON by mistake, such as the output of jq without ``-r``."""
    text = argument.encode("utf-8", "surrogateescape")
    try:
        loads(text, max_levels=MAX_LEVELS + 1)
    except NotStrictError:
        return False
    return _LOOKS_LIKE_JSON.match(text) is not None


def _checked(fields: Mapping[str, Any]) -> Mapping[str, Any] | BadJobError:
    message = Message(id="", has_own_id=False, args=(), kwargs=fields, **_NO_OPTIONS)
    parsed = parse(message)
    return BadJobError(parsed.problem.detail) if isinstance(parsed, Rejection) else parsed.received_fields
