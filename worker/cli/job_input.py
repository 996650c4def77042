"""The jobs that ``enqueue`` is given: conversation ids, or lines with an id or a JSON object each.

What is wrong is told with its place and the mend, in the words of the rules that the worker itself applies. An input
can be read twice, so that all of it is looked at before anything is sent.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from tasks import job
from tasks.message import Message, Refusal
from tasks.strict_json import NotStrict, loads
from worker.cli.endings import WRONG_USE, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_BLANKS = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NO_OPTIONS: Mapping[str, Any] = {
    "not_before": None, "expires_at": None, "traceparent": None, "replay_of": None, "ignored": (),
}  # fmt: skip


class BadJob(ValueError):  # noqa: N818 - it names what was found
    """The worker would reject the job; the message names the field and the mend."""


Found: TypeAlias = "tuple[str, Mapping[str, Any] | BadJob]"
"""Where a job stands, and its fields, or what is wrong with it."""
Read: TypeAlias = "Callable[[], Iterator[Found]]"


@contextmanager
def of_arguments(ids: Sequence[str], common: Mapping[str, Any]) -> Iterator[Read]:
    """Jobs for these conversations. ``common`` are the fields that every job has."""

    def read() -> Iterator[Found]:
        for number, conversation_id in enumerate(ids, start=1):
            yield f"argument {number}", _checked({**common, "conversation_id": conversation_id})

    yield read


@contextmanager
def of_file(name: str, common: Mapping[str, Any]) -> Iterator[Read]:
    """Jobs from the lines of a file, or of standard input (``-``), which is read to its end first.

    ``common`` are the fields that a job has unless its line says otherwise. Blank lines are left out.
    """
    with _seekable(name) as lines:

        def read() -> Iterator[Found]:
            lines.seek(0)
            return _jobs(lines, common)

        yield read


@contextmanager
def _seekable(name: str) -> Iterator[BinaryIO]:
    try:
        opened = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        stop(f"--file {name}: {error.strerror}", WRONG_USE)
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
            except BadJob as bad:
                found = bad
            yield f"line {number}", found


def _fields(text: bytes) -> Mapping[str, Any]:
    if not text.startswith(b"{"):
        try:
            return {"conversation_id": text.decode()}
        except UnicodeDecodeError as error:
            raise BadJob(f"is not UTF-8 (byte {error.start + 1}).") from None
    try:
        fields: Mapping[str, Any] = loads(text, max_levels=job.MAX_LEVELS + 1)
    except NotStrict as reason:
        raise BadJob(f"{reason}.") from None
    return fields


def _checked(fields: Mapping[str, Any]) -> Mapping[str, Any] | BadJob:
    message = Message(id="", has_own_id=False, args=(), kwargs=fields, **_NO_OPTIONS)
    intake = job.parse(message)
    return BadJob(intake.problem.detail) if isinstance(intake, Refusal) else intake.echo
